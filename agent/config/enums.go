package config

// Values lists every provider, the default first.
func (Provider) Values() []string {
	return []string{string(ProviderAuto), string(ProviderEC2), string(ProviderLocal)}
}

// Values lists every policy, the default first.
func (PullPolicy) Values() []string {
	return []string{string(PullMissing), string(PullAlways), string(PullNever)}
}

// Values lists every way to pin, the default first.
func (Pin) Values() []string { return []string{string(PinNone), string(PinDigest)} }

// Values lists every scope, the default first.
func (Scope) Values() []string { return []string{string(ScopeNode), string(ScopeShared)} }

// Values lists every gate, the default first.
func (Gate) Values() []string {
	return []string{string(GateAuto), string(GateAlways), string(GateNever)}
}

// Values lists what an advice may do, the default first.
func (Advice) Values() []string { return []string{string(AdviceNote), string(AdviceDrain)} }

// Values lists libpq's modes, the default first.
func (PostgresTLSMode) Values() []string {
	return []string{"prefer", "disable", "allow", "require", "verify-ca", "verify-full"}
}

// Values lists libpq's ways to negotiate, the default first.
func (PostgresNegotiation) Values() []string { return []string{"postgres", "direct"} }

// enum is a string type with a fixed set of values.
type enum interface{ Values() []string }
