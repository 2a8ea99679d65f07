// Package workload runs the node's Docker Compose application.
//
// What enters are the operator's own Compose files, a directory in which their secrets are kept (package secret fills
// it) and a Docker Engine on this machine. What leaves is a running project, the moment at which it is ready, its
// state, and its end in order.
//
// The application is started by the operator's own compose plugin, executed with a clean environment and one
// generated override file. compose-go reads the same files with the same variables, so that both see one project;
// readiness is watched through the engine's API. Afterwards [Runner.Reconcile] brings back what goes away, and leaves alone
// what an operator stopped.
//
// It never pulls or builds an image, never answers yes to a question compose asks, never removes a volume, never hands
// the value of a secret to compose, and never shows one in an error or a log.
//
// # Secrets
//
// Every Compose secret of an active service is served from <store>/<service>, a directory on tmpfs that is mounted
// read-only as that container's /run/secrets. Compose itself ignores uid, gid and mode of file secrets, refuses
// external ones and copies the others into the container's writable layer; the override therefore takes "secrets:"
// away from the services and adds the mount.
//
// # Restart policies
//
// Declared restart policies are left alone. After a reboot the store is empty while dockerd brings back containers;
// the mount is one that the engine doesn't create (create_host_path: false), so a container whose secrets aren't there
// fails to start, stays down, and is started by the agent once they are. Turning always into on-failure would add
// nothing: the engine restarts those as well when it starts (moby/moby#35166 and #47846; seen on Engine 20.10 after a
// clean stop and after a power loss), and a service that ends with 0 would stay down for good.
package workload
