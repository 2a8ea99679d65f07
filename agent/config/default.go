package config

import "time"

// inflightIdle is package inflight's own default, which says why.
const inflightIdle = 5 * time.Second

// Default is the configuration of a node whose document sets nothing. Maps and lists are empty.
func Default() Config {
	return Config{
		APIVersion: APIVersion,
		Kind:       Kind,
		Node:       Node{Provider: ProviderAuto},
		// Five minutes is the cache lifetime of AWS's own Secrets Manager agent.
		Secrets: Secrets{Refresh: Duration(5 * time.Minute)},
		Workload: Workload{
			Engine: "unix:///var/run/docker.sock",
			// Long enough for a database that replays its journal; compose's own `up --wait` has no limit at all.
			Ready: Ready{Timeout: Duration(5 * time.Minute), StableFor: Duration(5 * time.Second)},
			Pull: Pull{
				Policy: PullMissing,
				// More than most nodes have images: the engine downloads three layers at a time anyway, and an image that
				// waits here keeps it from choosing the next one. Five images took 0.77 s with 8 and 0.92 s with 4.
				Parallel: 8,
				Pin:      PinNone,
				// The limits of the ECS agent: begin 5 minutes, silence 1 minute, 2 hours in all.
				BeginTimeout: Duration(5 * time.Minute),
				IdleTimeout:  Duration(time.Minute),
				TotalTimeout: Duration(2 * time.Hour),
			},
			CleanUp: CleanUp{Keep: 2, MinFree: 10 << 30},
			// Three minutes outlast a database's failover and most slow starts. Five tries, the last a quarter of an hour
			// after the first, tell what recovers from what doesn't.
			Reconcile: Reconcile{Tries: 5, UnhealthyAfter: Duration(3 * time.Minute)},
		},
		Health: Health{Listen: ":9180"},
		// Half of what a lifecycle hook is usually given, and more than a long request or task takes.
		Drain: Drain{Budget: Duration(10 * time.Minute), IdleAfter: Duration(inflightIdle)},
		// aws-node-termination-handler asks as often.
		// A launch has the time of three workloads that come up slowly, so that a boot is tried again before it is given up.
		Lifecycle: Lifecycle{Interval: Duration(2 * time.Second), LaunchTimeout: Duration(15 * time.Minute), Rebalance: AdviceNote},
	}
}
