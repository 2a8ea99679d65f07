#!/usr/bin/env bash
# Prints what each large dependency costs in the agent's stripped binary, the largest first. docs/decisions/weight.md says
# how to read it.
#
#   scripts/weight.sh
#
# Machine code is counted by the symbol table, which the stripped binary lacks, so it is built once more with one. Names,
# line tables and constants have no owner in it: each library gets as much of them as of the code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly dir=.build/weight
mkdir -p "$dir"
CGO_ENABLED=0 go build -trimpath -o "$dir/symbols" ./cmd/flowagent
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$dir/stripped" ./cmd/flowagent

# Names and the packages that count for them, as the beginning of a symbol's name; the first that fits gets it. What only
# one library needs is counted with that library.
groups=$(
  cat <<'END'
AWS SDK: SSM|github.com/aws/aws-sdk-go-v2/service/ssm.
AWS SDK: SSM|github.com/aws/aws-sdk-go-v2/service/ssm/
AWS SDK: Secrets Manager|github.com/aws/aws-sdk-go-v2/service/secretsmanager
AWS SDK: ECR|github.com/aws/aws-sdk-go-v2/service/ecr
AWS SDK: CloudWatch|github.com/aws/aws-sdk-go-v2/service/cloudwatch
AWS SDK: EventBridge|github.com/aws/aws-sdk-go-v2/service/eventbridge
AWS SDK: Elastic Load Balancing|github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2
AWS SDK: Auto Scaling|github.com/aws/aws-sdk-go-v2/service/autoscaling
AWS SDK: sign-in (sso, ssooidc, signin, sts)|github.com/aws/aws-sdk-go-v2/service/s
AWS SDK: common parts, smithy-go|github.com/aws/
moby client, with OpenTelemetry|github.com/moby/
moby client, with OpenTelemetry|go.opentelemetry.io/
moby client, with OpenTelemetry|github.com/docker/go-connections
moby client, with OpenTelemetry|github.com/go-logr/
moby client, with OpenTelemetry|github.com/felixge/
moby client, with OpenTelemetry|github.com/containerd/
moby client, with OpenTelemetry|github.com/opencontainers/
moby client, with OpenTelemetry|github.com/distribution/
compose-go, with jsonschema and yaml|github.com/compose-spec/
compose-go, with jsonschema and yaml|github.com/santhosh-tekuri/
compose-go, with jsonschema and yaml|github.com/go-viper/
compose-go, with jsonschema and yaml|go.yaml.in/
compose-go, with jsonschema and yaml|github.com/mattn/
compose-go, with jsonschema and yaml|github.com/xhit/
compose-go, with jsonschema and yaml|github.com/docker/go-units
compose-go, with jsonschema and yaml|github.com/sirupsen/
pgx|github.com/jackc/
Prometheus client, with protobuf|github.com/prometheus/
Prometheus client, with protobuf|google.golang.org/protobuf
Prometheus client, with protobuf|github.com/beorn7/
Prometheus client, with protobuf|github.com/cespare/
Prometheus client, with protobuf|github.com/munnerz/
cobra, pflag|github.com/spf13/
go-systemd, dbus|github.com/coreos/
go-systemd, dbus|github.com/godbus/
age, with hpke|filippo.io/
goccy/go-yaml|github.com/goccy/
golang.org/x/text|golang.org/x/text
golang.org/x, the others|golang.org/x/
image: SBOM formats, word search|github.com/CycloneDX/
image: SBOM formats, word search|github.com/spdx/
image: SBOM formats, word search|github.com/anchore/
image: SBOM formats, word search|github.com/package-url/
image: SBOM formats, word search|github.com/cloudflare/
flowagent itself|github.com/flowviz/flowagent
flowagent itself|main.
END
)

go tool nm -size "$dir/symbols" | awk -v groups="$groups" -v stripped="$(stat -c %s "$dir/stripped")" '
  BEGIN {
    lines = split(groups, line, "\n")
    for (i = 1; i <= lines; i++) { split(line[i], part, "|"); name[i] = part[1]; prefix[i] = part[2] }
  }
  $3 == "T" || $3 == "t" {
    symbol = $4
    sub(/^type:\.(eq|hash)\./, "", symbol)
    sub(/^\*/, "", symbol)
    owner = symbol ~ /^[a-z0-9-]+\.[a-z]+\// ? "others" : "Go: runtime, net/http, crypto/tls and the rest"
    for (i = 1; i <= lines; i++) if (index(symbol, prefix[i]) == 1) { owner = name[i]; break }
    code[owner] += $2
    all += $2
  }
  END {
    for (owner in code)
      printf "%6.2f MB code  %6.2f MB of the binary  %4.1f %%  %s\n",
        code[owner] / 1e6, code[owner] / all * stripped / 1e6, 100 * code[owner] / all, owner | "sort -rn"
    close("sort -rn")
    printf "%6.2f MB code  %6.2f MB of the binary  all\n", all / 1e6, stripped / 1e6
  }'
