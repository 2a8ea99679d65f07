// Package lab gives tests, benches and demos real parts to work against: a Docker Engine, the compose plugin, AWS
// (moto), an EC2 metadata service, authenticated TLS registries, a small container image, whole machines with a systemd of
// their own, and nginx and a steady load in front of nodes.
//
// What enters are programs that [Makefile] built or the system has, and the FLOWAGENT_* variables below; what leaves
// are addresses, paths and credentials of parts that end with the test or with [Process.Stop]. Nothing here is a mock
// of flowagent's own code, nothing asks a network outside this machine, and nothing touches an engine, container or
// image that the caller didn't name.
//
// The functions that take a [testing.TB] fail the test when a part is missing under CI (the variable CI is not empty),
// and skip it with the reason otherwise. The Start functions under them serve programs: the command in cmd/lab runs a
// whole private node made of Linux namespaces with them.
//
// [Makefile]: ../../Makefile
package lab

// Variables by which a test process learns where the parts are. The lab command sets all of them.
const (
	// EngineVariable holds the engine's address, unix:///path of its socket.
	EngineVariable = "FLOWAGENT_TEST_ENGINE"
	// ComposeVariable holds the path of the docker-compose plugin; by default .build/bin/docker-compose.
	ComposeVariable = "FLOWAGENT_TEST_COMPOSE"
	// MetadataVariable holds the path of ec2-metadata-mock; by default .build/bin/ec2-metadata-mock.
	MetadataVariable = "FLOWAGENT_TEST_METADATA_MOCK"
	// VegetaVariable holds the path of vegeta; by default .build/bin/vegeta.
	VegetaVariable = "FLOWAGENT_TEST_VEGETA"
	// DirectoryVariable holds the lab's own directory, and is set inside a lab only.
	DirectoryVariable = "FLOWAGENT_LAB"
	// DiskVariable holds a directory on a disk that is empty when a lab starts, and is set inside a lab only.
	DiskVariable = "FLOWAGENT_LAB_DISK"
	// CgroupVariable holds the path of the cgroup for what a lab starts, which goes with it, and is set inside a lab only.
	CgroupVariable = "FLOWAGENT_LAB_CGROUP"
)
