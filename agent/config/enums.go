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

// enum is a string type with a fixed set of values.
type enum interface{ Values() []string }
