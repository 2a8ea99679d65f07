// Package faults holds every trigger of a drain against everything that can go wrong in one: each step failing, hanging,
// or its agent killed with SIGKILL, and the services of AWS late, silent, throttled or losing replies.
//
// What enters is the matrix of the two in triggers_test.go and faults_test.go; what leaves is a table on standard output,
// and a failed test for each cell that ended wrong. A cell is a whole node of its own: the real agent as a process, real
// containers on the lab's Docker Engine, the real metadata mock, and AWS in this process, which therefore outlives the
// agent and counts what took effect. It has tests only.
//
// Every cell ends the same way, whatever went wrong: no container runs, the tmpfs is empty, /health never said 200 again
// after it said "draining", what failed is in the agent's log, and a termination hook was completed exactly once, with
// CONTINUE, before its time was up. A trigger without a hook completes nothing. Where a fault leaves something behind,
// such as a container that no engine could stop, the fault says so and the cell checks that just this is left.
//
//	make faults                                             the whole matrix
//	scripts/test.sh ./test/faults                           a diagonal through it, as make test has it
//	scripts/faults.sh -test.run '/services/hangs/terminate'  one cell
//
// # What stands in
//
// Faults are made where the agent can't tell them from real ones. A relay between the agent and its engine is cut, which
// looks like an engine that was killed, or frozen, which looks like one that was stopped with SIGSTOP: the engine serves
// all cells at once, so it can't be stopped for one. A door in front of the metadata mock refuses, delays or hides answers.
// Services that ignore SIGTERM, hooks that exit with 1 or never, a tmpfs that turned read-only and a lock that is never
// let go are what they are.
package faults
