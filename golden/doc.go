// Package golden is the home of what makes a machine's disk a golden image: a disk from which any number of nodes boot, each
// with an identity of its own.
//
//   - seal takes from a disk what belongs to the one machine that it was built on.
//   - verify proves that a disk is fit to be cloned: sealed, complete, and without a credential on it. It uses leak, which
//     finds credentials in a stream of bytes.
//   - sbom writes down what the disk is made of.
//
// What enters is the root directory of a system: "/" on the machine that is being built, or the directory where a disk is
// mounted. Nothing here leaves that directory by a symbolic link, and only seal changes anything in it.
package golden
