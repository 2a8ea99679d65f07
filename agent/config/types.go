// Package config reads a node's configuration: one strict, layered YAML document.
//
// What enters are files (and, on EC2, the instance's user data); what leaves is a [Config] whose every value is
// typed, defaulted and checked, together with the place each value came from. It never talks to the network and
// never holds the value of a secret, only where to find one.
package config

// APIVersion and Kind are the only header this version reads.
const (
	APIVersion = "flowagent/v1"
	Kind       = "Node"
)

// Config is a whole node: what it is, what it needs, what it runs and how it leaves.
type Config struct {
	// Version of this document's format: always flowagent/v1.
	APIVersion string `yaml:"apiVersion"`
	// What the document describes: always Node.
	Kind string `yaml:"kind"`
	// What the machine is and who says so.
	Node Node `yaml:"node"`
	// The secrets the workload and the registries need, and where each one is kept. Never a value.
	Secrets Secrets `yaml:"secrets"`
	// How to log in to image registries. A registry without an entry is used anonymously.
	Registries []Registry `yaml:"registries"`
	// The Docker Compose application this node runs.
	Workload Workload `yaml:"workload"`
	// Where the node answers for its health, and what that depends on.
	Health Health `yaml:"health"`
	// How the node stops taking work and lets go of it.
	Drain Drain `yaml:"drain"`
	// What the node makes of what EC2 announces. Outside EC2 it means nothing.
	Lifecycle Lifecycle `yaml:"lifecycle"`
	// The few metrics that a rollout decides on, sent to Amazon CloudWatch. Left out: nothing is sent. Outside EC2 nothing ever is.
	CloudWatch *CloudWatch `yaml:"cloudWatch"`
	// Who is told when the node turns ready, fails to boot, is announced something or leaves. Left out: nobody.
	Notify Notify `yaml:"notify"`
}

// Node says what the machine is.
type Node struct {
	// Free-form name of the environment (production, staging); appears in status and events.
	Environment string `yaml:"environment"`
	// Which half of a blue-green deployment the node belongs to, such as blue; a dimension of its metrics.
	Color string `yaml:"color"`
	// Which release of the application the node runs, such as 2026.11.1; a dimension of its metrics.
	Release string `yaml:"release"`
	// Where identity comes from. auto asks the firmware (DMI) first, so a machine outside EC2 never waits for a metadata service.
	Provider Provider `yaml:"provider"`
}

// Provider is a source of the node's identity.
type Provider string

const (
	ProviderAuto  Provider = "auto"
	ProviderEC2   Provider = "ec2"
	ProviderLocal Provider = "local"
)

// Secrets lists what to fetch and how often.
type Secrets struct {
	// How often secrets are fetched again, spread by up to a tenth either way. 0s turns refreshing off; otherwise at least 10s.
	Refresh Duration `yaml:"refresh"`
	// Where the age identity (private key) for encrypted files is.
	Age AgeIdentity `yaml:"age"`
	// How to reach HashiCorp Vault; needed when an item comes from it.
	Vault Vault `yaml:"vault"`
	// The secrets, by name. A Compose secret with "external: true" is served from the item of the same name.
	Items []Secret `yaml:"items"`
}

// AgeIdentity locates the age identity; at most one field is set. When none is, /etc/flowagent/age.key is read.
type AgeIdentity struct {
	// Path of a file with one or more age identities, readable by root only.
	IdentityFile string `yaml:"identityFile"`
	// Name of the systemd credential that holds the identities.
	IdentityCredential string `yaml:"identityCredential"`
}

// Vault is one HashiCorp Vault (or OpenBao) server.
type Vault struct {
	// Base URL, such as https://vault.factory.local:8200.
	Address URL `yaml:"address"`
	// Vault Enterprise namespace; empty for none.
	Namespace string `yaml:"namespace"`
	// PEM file of the authority that signed the server's certificate; empty for the system's.
	CAFile string `yaml:"caFile"`
	// Path of a file that holds a token.
	TokenFile string `yaml:"tokenFile"`
	// Log in with an AppRole instead of a token.
	AppRole *VaultAppRole `yaml:"appRole"`
}

// VaultAppRole logs in to Vault as a machine.
type VaultAppRole struct {
	// Mount path of the auth method. Default approle.
	Mount string `yaml:"mount"`
	// The role's id, which is not secret.
	RoleID string `yaml:"roleId"`
	// Path of a file that holds the secret id; this or secretIdCredential.
	SecretIDFile string `yaml:"secretIdFile"`
	// Name of the systemd credential that holds the secret id.
	SecretIDCredential string `yaml:"secretIdCredential"`
}

// Secret is one named secret.
type Secret struct {
	// Name by which Compose files and registries refer to it: letters, digits, dot, dash and underscore.
	Name string `yaml:"name"`
	// Where the value is kept; exactly one source.
	From Source `yaml:"from"`
	// What happens to the services that use it when its value changes: none (the file is replaced, that is all), restart (those services are recreated) or {signal: SIGHUP}.
	OnChange OnChange `yaml:"onChange"`
}

// Source says where a secret is kept; exactly one field is set.
type Source struct {
	// AWS Secrets Manager.
	SecretsManager *SecretsManagerSource `yaml:"secretsManager"`
	// AWS Systems Manager Parameter Store.
	SSM *SSMSource `yaml:"ssm"`
	// A YAML or JSON file encrypted with age.
	Age *AgeSource `yaml:"age"`
	// A systemd credential handed to the agent's own unit (LoadCredential=, LoadCredentialEncrypted=).
	Credential *CredentialSource `yaml:"credential"`
	// A plain file.
	File *FileSource `yaml:"file"`
	// HashiCorp Vault, KV version 2.
	Vault *VaultSource `yaml:"vault"`
}

// SecretsManagerSource is one secret of AWS Secrets Manager, as text or binary.
type SecretsManagerSource struct {
	// Name or ARN.
	ID string `yaml:"id"`
	// Path into the secret's JSON, such as db.password. Empty: the whole value.
	Key string `yaml:"key"`
	// Staging label. Default AWSCURRENT.
	Stage string `yaml:"stage"`
	// One version's id, instead of a staging label.
	VersionID string `yaml:"versionId"`
	// Region, where it is not the node's own.
	Region string `yaml:"region"`
}

// SSMSource is one parameter, decrypted.
type SSMSource struct {
	// Name or ARN; may end in :version or :label.
	Name string `yaml:"name"`
	// Path into the parameter's JSON. Empty: the whole value.
	Key string `yaml:"key"`
	// Region, where it is not the node's own.
	Region string `yaml:"region"`
}

// AgeSource is one entry of an age-encrypted YAML or JSON file (binary or armored).
type AgeSource struct {
	// Path of the encrypted file.
	File string `yaml:"file"`
	// Path into the document. Empty: the whole decrypted file.
	Key string `yaml:"key"`
}

// CredentialSource is one systemd credential.
type CredentialSource struct {
	// The credential's name, as in the unit.
	Name string `yaml:"name"`
	// Path into the credential's JSON. Empty: the whole value.
	Key string `yaml:"key"`
}

// FileSource is one plain file.
type FileSource struct {
	// Path of the file.
	Path string `yaml:"path"`
	// Path into the file's JSON. Empty: the whole file.
	Key string `yaml:"key"`
}

// VaultSource is one field of a KV version 2 secret.
type VaultSource struct {
	// Mount path of the engine. Default secret.
	Mount string `yaml:"mount"`
	// Path of the secret below the mount, without "data/".
	Path string `yaml:"path"`
	// Path into the secret's data. Empty: all of it as JSON.
	Key string `yaml:"key"`
	// One version; 0 for the newest.
	Version int `yaml:"version"`
}

// OnChange says what a new value does to the services that use it. The zero value is "none".
type OnChange struct {
	// Restart recreates the services.
	Restart bool `yaml:"-"`
	// Signal, when not empty, is sent to the services' main processes, such as SIGHUP.
	Signal string `yaml:"signal"`
}

// Registry is how to log in to one image registry.
type Registry struct {
	// Host name with an optional port, as it stands in image references; docker.io for Docker Hub.
	Host string `yaml:"host"`
	// Amazon ECR: tokens are fetched with the node's own credentials and kept in memory.
	ECR *ECR `yaml:"ecr"`
	// User name for a registry with basic authentication.
	Username string `yaml:"username"`
	// Name of the secret that holds the password.
	PasswordSecret string `yaml:"passwordSecret"`
}

// ECR is one Amazon ECR registry; account and region are read from the host name.
type ECR struct {
	// Region, where the host name does not tell it.
	Region string `yaml:"region"`
}

// Workload is a Docker Compose application.
type Workload struct {
	// Compose project name.
	Project string `yaml:"project"`
	// Compose files, in order; later ones add to and change earlier ones.
	Files []string `yaml:"files"`
	// Compose profiles to run. Services without a profile always run.
	Profiles []string `yaml:"profiles"`
	// Variables for ${NAME} in the Compose files. Never a secret.
	Variables map[string]string `yaml:"variables"`
	// Docker Engine to use.
	Engine EngineAddress `yaml:"engine"`
	// When the application counts as ready.
	Ready Ready `yaml:"ready"`
	// How images reach the node.
	Pull Pull `yaml:"pull"`
	// Which superseded images are removed, and when.
	CleanUp CleanUp `yaml:"cleanUp"`
	// How services that go away after the boot are brought back.
	Reconcile Reconcile `yaml:"reconcile"`
}

// Ready says when the application counts as ready: every service running (and healthy where it has a health check), every one-shot ended with 0.
type Ready struct {
	// How long to wait.
	Timeout Duration `yaml:"timeout"`
	// How long a service without a health check must run without a restart.
	StableFor Duration `yaml:"stableFor"`
}

// Reconcile says how services that go away after the boot are brought back. What an operator stopped is left alone.
type Reconcile struct {
	// How often a service is brought back, with growing pauses, before it is given up. A service that then runs for ten minutes is given as many tries again. 0 turns reconciliation off.
	Tries int `yaml:"tries"`
	// How long a service's health check must fail before it is restarted. 0s leaves unhealthy services alone.
	UnhealthyAfter Duration `yaml:"unhealthyAfter"`
	// Services that are never brought back or restarted, such as a database that is slow to recover.
	Leave []string `yaml:"leave"`
}

// PullPolicy says when an image is pulled.
type PullPolicy string

const (
	PullMissing PullPolicy = "missing" // only what the engine doesn't have
	PullAlways  PullPolicy = "always"  // asks the registry each time
	PullNever   PullPolicy = "never"   // a missing image is an error
)

// Pin says what an image reference must look like.
type Pin string

const (
	PinNone   Pin = "none"   // tags are allowed
	PinDigest Pin = "digest" // only name@sha256:…, and what arrives is checked against it
)

// Pull says how images reach the node.
type Pull struct {
	// When to pull: missing, always or never.
	Policy PullPolicy `yaml:"policy"`
	// How many images are pulled at once, 1 to 32.
	Parallel int `yaml:"parallel"`
	// none allows tags; digest refuses an image that isn't named by digest.
	Pin Pin `yaml:"pin"`
	// Directory with image archives (docker save or OCI layout, .tar or .tar.gz) that are loaded before anything is pulled.
	Archives string `yaml:"archives"`
	// Longest wait for a registry's first answer to a pull.
	BeginTimeout Duration `yaml:"beginTimeout"`
	// Longest silence during a pull.
	IdleTimeout Duration `yaml:"idleTimeout"`
	// Longest time for one image, all tries together.
	TotalTimeout Duration `yaml:"totalTimeout"`
}

// CleanUp removes images of this workload's repositories that newer ones have replaced; never one in use.
type CleanUp struct {
	// How many images to keep of each repository, the newest first, besides those in use.
	Keep int `yaml:"keep"`
	// Clean up only while the engine's disk has less free space than this. 0 turns clean-up off.
	MinFree ByteSize `yaml:"minFree"`
}

// Health says where the node answers for its health, and what that depends on.
type Health struct {
	// Address of the HTTP listener for load balancers.
	Listen ListenAddress `yaml:"listen"`
	// What is asked again and again, by name.
	Checks []Check `yaml:"checks"`
}

// Drain says how the node lets go of its work.
type Drain struct {
	// Longest time for the whole drain.
	Budget Duration `yaml:"budget"`
	// Services in the order in which they stop, before the rest.
	Order []string `yaml:"order"`
	// How long a load balancer or edge is given to notice that /health turned 503, before services stop.
	DeregisterDelay Duration `yaml:"deregisterDelay"`
	// How long no packet may have been seen on a connection for it to count as idle rather than as a request under way; longer than the longest silence of a request that is worth waiting for.
	IdleAfter Duration `yaml:"idleAfter"`
	// Programs that run once the services have stopped, one after the other, such as one that ships the last logs. One that fails keeps none from running.
	Hooks []DrainHook `yaml:"hooks"`
}

// DrainHook is a program that runs in a drain, in the sandbox of the agent's unit.
type DrainHook struct {
	// Name by which events call it: letters, digits, dots, dashes and underscores.
	Name string `yaml:"name"`
	// The program and its arguments; no shell is involved.
	Argv []string `yaml:"argv"`
	// How long it may take.
	Timeout Duration `yaml:"timeout"`
}

// Advice says what to do with an announcement that need not come true.
type Advice string

const (
	AdviceNote  Advice = "note"  // an event, and nothing else
	AdviceDrain Advice = "drain" // leave now
)

// Lifecycle says what the node makes of what EC2 announces. The end of the instance (Auto Scaling, a spot interruption) always drains it.
type Lifecycle struct {
	// How often instance metadata is asked for the target lifecycle state; at least 1s.
	Interval Duration `yaml:"interval"`
	// Name of the Auto Scaling launch hook that the node completes: CONTINUE when it is ready, ABANDON when it won't be. Empty: every one that the group has; needed where the role may not call DescribeLifecycleHooks.
	LaunchHook string `yaml:"launchHook"`
	// How long a launch may take from the agent's first start, restarts included, before it is abandoned where a launch hook waits; at least 1m. Launches of the group that failed before lengthen it.
	LaunchTimeout Duration `yaml:"launchTimeout"`
	// Name of the Auto Scaling termination hook that the node completes. Empty: every one that the group has; needed where the role may not call DescribeLifecycleHooks.
	TerminateHook string `yaml:"terminateHook"`
	// What a rebalance recommendation does: note or drain. Most instances that get one are never interrupted.
	Rebalance Advice `yaml:"rebalance"`
}

// CloudWatch says where metrics go: NodeReady and DatabaseConnectionErrors, each with the node's color and release as dimensions.
type CloudWatch struct {
	// Namespace of the metrics, such as FlowViz.
	Namespace string `yaml:"namespace"`
	// Region, where it is not the node's own.
	Region string `yaml:"region"`
}

// Notify says who is told what happens to the node: a webhook, an EventBridge bus, or both. Both get the same events.
type Notify struct {
	// An HTTP server that takes each event as a POST request.
	Webhook *Webhook `yaml:"webhook"`
	// A bus of Amazon EventBridge that each event is put on.
	EventBridge *EventBridge `yaml:"eventBridge"`
}

// Webhook is an HTTP server that takes events, by the Standard Webhooks specification.
type Webhook struct {
	// Where events are posted to: https, or http for a loopback or private IP address. No credentials in it.
	URL URL `yaml:"url"`
	// Name of the secret whose value is sent as a bearer token. Not over http, other than to this machine.
	TokenSecret string `yaml:"tokenSecret"`
	// Name of the secret that signs each request (HMAC-SHA256): whsec_ and 24 to 64 random bytes in base64; several, with spaces between them, while keys are changed.
	SigningSecret string `yaml:"signingSecret"`
	// How long one request may take.
	Timeout Duration `yaml:"timeout"`
	// PEM file of the authorities that signed the server's certificate; empty for the system's.
	CAFile string `yaml:"caFile"`
}

// EventBridge is one event bus.
type EventBridge struct {
	// Name or ARN of the bus.
	Bus string `yaml:"bus"`
	// Region of the bus, where it is neither the node's own nor in the ARN.
	Region string `yaml:"region"`
}
