package lab

import (
	"maps"
	"slices"
)

// Names are the registries' names that exist inside a lab, and nowhere else, with their addresses on its
// loopback interface. The first two have the shape of Amazon ECR registries in two accounts and regions; the first
// account is moto's own. The addresses are from TEST-NET-1 (RFC 5737) rather than 127.0.0.0/8, for which Docker Engine
// would skip the check of the certificate.
var Names = map[string]string{
	"123456789012.dkr.ecr.us-east-1.amazonaws.com":    "192.0.2.1",
	"210987654321.dkr.ecr.eu-central-1.amazonaws.com": "192.0.2.2",
	"registry.factory.local":                          "192.0.2.3",
}

func nameList() []string { return slices.Sorted(maps.Keys(Names)) }
