package iam

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// services are the packages of the SDK that the agent may call: IAM's prefix for their actions, and the client, which knows
// their operations. An operation's action has its name.
var services = map[string]struct {
	prefix string
	client reflect.Type
}{
	"autoscaling":            {"autoscaling", reflect.TypeFor[*autoscaling.Client]()},
	"cloudwatch":             {"cloudwatch", reflect.TypeFor[*cloudwatch.Client]()},
	"ecr":                    {"ecr", reflect.TypeFor[*ecr.Client]()},
	"elasticloadbalancingv2": {"elasticloadbalancing", reflect.TypeFor[*elb.Client]()},
	"eventbridge":            {"events", reflect.TypeFor[*eventbridge.Client]()},
	"secretsmanager":         {"secretsmanager", reflect.TypeFor[*secretsmanager.Client]()},
	"ssm":                    {"ssm", reflect.TypeFor[*ssm.Client]()},
}

// onBehalf are actions that others take with the node's permission, which no source here shows.
var onBehalf = map[string]string{
	"ecr:BatchGetImage":            "the engine gets a manifest",
	"ecr:GetDownloadUrlForLayer":   "the engine gets a layer",
	"kms:Decrypt":                  "Secrets Manager and Parameter Store decrypt for who may",
	"ec2:DescribeInstances":        "Elastic Load Balancing asks beside RegisterTargets",
	"ec2:DescribeInternetGateways": "Elastic Load Balancing asks beside RegisterTargets",
	"ec2:DescribeSubnets":          "Elastic Load Balancing asks beside RegisterTargets",
	"ec2:DescribeVpcs":             "Elastic Load Balancing asks beside RegisterTargets",
}

func TestThePolicyHasWhatTheAgentCalls(t *testing.T) {
	calls, err := findCalls("../..")
	if err != nil {
		t.Fatal(err)
	}
	granted := map[string]string{}
	for _, s := range everything(t).Statement {
		for _, action := range s.Action {
			granted[action] = s.Sid
		}
	}
	for action, where := range calls {
		if granted[action] == "" {
			t.Errorf("%s calls %s, which no statement of the policy allows: add it in needed.go, and to docs/guides/iam.md", where, action)
		}
	}
	for action, sid := range granted {
		if calls[action] == "" && onBehalf[action] == "" {
			t.Errorf("%s allows %s, which nothing in agent calls: take it out, or say in onBehalf who does", sid, action)
		}
	}
	for action := range onBehalf {
		if granted[action] == "" {
			t.Errorf("onBehalf has %s, which no statement allows", action)
		}
	}
}

// sdk begins the import paths of the SDK's services; harmless are its other packages that a node may use: they call nothing
// but instance metadata, and STS where a profile or a web identity says so, which a node's own role doesn't need.
const sdk = "github.com/aws/aws-sdk-go-v2/"

var harmless = []string{"aws", "config", "credentials", "feature/ec2/imds"}

// findCalls returns the actions behind the SDK operations that the sources below root's agent and internal name, each with
// one place. An operation can't be called without the name of its input type, but for a nil one; both are looked for, build
// constraints or not.
func findCalls(root string) (map[string]string, error) {
	calls := map[string]string{}
	files := token.NewFileSet()
	for _, dir := range []string{"agent", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && entry.Name() == "awsfake": // answers such calls, in tests
				return filepath.SkipDir
			case entry.IsDir(), !strings.HasSuffix(path, ".go"), strings.HasSuffix(path, "_test.go"):
				return nil
			}
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			return findCallsIn(file, func(at token.Pos, action string) {
				calls[action] = files.Position(at).String()
			})
		})
		if err != nil {
			return nil, err
		}
	}
	return calls, nil
}

func findCallsIn(file *ast.File, found func(at token.Pos, action string)) error {
	imported := map[string]string{} // services by the name they have in this file
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		rest, ours := strings.CutPrefix(path, sdk)
		if !ours {
			continue
		}
		service, isService := strings.CutPrefix(rest, "service/")
		service, types, _ := strings.Cut(service, "/")
		switch {
		case !isService:
			if !slices.ContainsFunc(harmless, func(h string) bool { return rest == h || strings.HasPrefix(rest, h+"/") }) {
				return fmt.Errorf("%s is imported: say in harmless that it calls nothing, or look for its calls", path)
			}
		case services[service].prefix == "":
			return fmt.Errorf("%s is imported: add its IAM prefix and client to services", path)
		case types == "":
			name := service
			if spec.Name != nil {
				name = spec.Name.Name
			}
			imported[name] = service
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			of, isName := n.X.(*ast.Ident)
			operation, isInput := strings.CutSuffix(n.Sel.Name, "Input")
			if !isName || !isInput || imported[of.Name] == "" {
				return true
			}
			service := services[imported[of.Name]]
			if _, exists := service.client.MethodByName(operation); exists {
				found(n.Pos(), service.prefix+":"+operation)
			}
		case *ast.CallExpr:
			called, isMethod := n.Fun.(*ast.SelectorExpr)
			if !isMethod || len(n.Args) < 2 {
				return true
			}
			if input, isName := n.Args[1].(*ast.Ident); !isName || input.Name != "nil" {
				return true
			}
			for _, service := range services {
				if _, exists := service.client.MethodByName(called.Sel.Name); exists {
					found(n.Pos(), service.prefix+":"+called.Sel.Name)
				}
			}
		}
		return true
	})
	return nil
}

// The search itself is held against sources with calls of every kind in them, or it could find nothing for ever.
func TestCallsAreFound(t *testing.T) {
	for name, tt := range map[string]struct {
		source string
		want   []string
	}{
		"a call": {`import "` + sdk + `service/ssm"
			func f(c *ssm.Client) { c.GetParameters(ctx, &ssm.GetParametersInput{}) }`, []string{"ssm:GetParameters"}},
		"under another name": {`import x "` + sdk + `service/elasticloadbalancingv2"
			func f(c *x.Client) { in := x.DescribeTargetHealthInput{}; c.DescribeTargetHealth(ctx, &in) }`, []string{"elasticloadbalancing:DescribeTargetHealth"}},
		"an interface": {`import "` + sdk + `service/autoscaling"
			type API interface { CompleteLifecycleAction(context.Context, *autoscaling.CompleteLifecycleActionInput) }`, []string{"autoscaling:CompleteLifecycleAction"}},
		"a pager": {`import "` + sdk + `service/ssm"
			func f(c *ssm.Client) { ssm.NewGetParametersByPathPaginator(c, &ssm.GetParametersByPathInput{}) }`, []string{"ssm:GetParametersByPath"}},
		"no input": {`func f(c client) { c.GetAuthorizationToken(ctx, nil) }`, []string{"ecr:GetAuthorizationToken"}},
		"behind a build constraint": {"//go:build windows\n\npackage p\n" + `import "` + sdk + `service/ecr"
			var in ecr.DescribeImagesInput`, []string{"ecr:DescribeImages"}},
		"types alone": {`import "` + sdk + `service/ssm/types"
			var x types.ParameterInput`, nil},
		"an input of something else": {`import "` + sdk + `service/ssm"
			var x = other.GetParametersInput{}; var y ssm.NoSuchInput`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := findCalls(tree(t, tt.source))
			if err != nil {
				t.Fatal(err)
			}
			var actions []string
			for action := range got {
				actions = append(actions, action)
			}
			if !slices.Equal(actions, tt.want) {
				t.Errorf("got %q, want %q", actions, tt.want)
			}
		})
	}
	for _, unknown := range []string{"service/s3", "service/s3/types", "feature/s3/manager"} {
		if _, err := findCalls(tree(t, `import "`+sdk+unknown+`"`)); err == nil || !strings.Contains(err.Error(), unknown) {
			t.Errorf("%s: got %v, want an error that names it", unknown, err)
		}
	}
}

// tree is a root with one source in agent.
func tree(t *testing.T, source string) string {
	t.Helper()
	root := t.TempDir()
	if !strings.Contains(source, "package p") {
		source = "package p\n" + source
	}
	for _, dir := range []string{"agent/x", "internal"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "agent/x/x.go"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}
