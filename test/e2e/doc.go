// Package e2e boots whole nodes: the real flowagent binary, built with the race detector, against a Docker Engine, the
// compose plugin, registries, moto and the metadata mock of package lab. What enters are the directories below; what
// leaves are failures that say which promise to an operator is broken. It has tests only.
//
//	boots/<case>/     a node that becomes ready; case.yaml says what it needs around it and what its status must say
//	refusals/<case>/  a node that must not start; case.yaml says with which exit code and words
//	stories/<case>/   a node to which something happens; the story is told in Go, in the test of that name
//
// Behind the build tag fleet is a story of many nodes, which runs examples/wms behind nginx for minutes: `make drain-e2e`.
//
// # A new case
//
// Copy a directory of boots or refusals and change it: that is all, the tests find it by itself. Each has config.yaml
// and compose.yaml as an operator writes them, and case.yaml, whose fields are in the type scene. What differs
// from run to run (project name, engine, health address, image) comes in a drop-in, so a case never names them; in
// any file of a case, @REGISTRY@ and @REGISTRY_PASSWORD@ stand for the registry that case.yaml asked for, and @DIR@ for
// the directory that the case was copied to. Images are ${APP}, the program of test/lab/app.
//
// Values under age and secretsManager in case.yaml are secrets: a test fails when one shows up in what the agent
// prints.
package e2e
