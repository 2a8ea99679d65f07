// Package cloud is AWS as moto plays it, with what moto 5.2 lacks for Terraform's sake put right on the way.
//
// What enters are requests of Terraform and the AWS command line; nearly all go to moto and come back as they are. What is
// put right is listed in [New], each with the reason: an answer that leaves out what was asked for would be a difference
// for ever. Nothing succeeds here that moto refuses, but for user groups, of which it knows nothing.
package cloud

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/flowviz/flowagent/internal/awsfake"
)

// Cloud is an http.Handler for AWS_ENDPOINT_URL.
type Cloud struct {
	*awsfake.Server
	moto *httputil.ReverseProxy

	mu           sync.Mutex
	groups       []userGroup
	replication  map[string]url.Values        // what a replication group was asked for, by its id
	asked        map[string]map[string]string // what a resource was asked for, by the element that identifies it in answers
	descriptions map[string]string            // of security group rules, by id
}

// New stands before moto, the URL of an empty moto_server.
func New(moto string) (*Cloud, error) {
	server, err := awsfake.New(moto)
	if err != nil {
		return nil, err
	}
	target, err := url.Parse(moto)
	if err != nil {
		return nil, err
	}
	c := &Cloud{
		Server:       server,
		moto:         &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }},
		replication:  map[string]url.Values{},
		asked:        map[string]map[string]string{},
		descriptions: map[string]string{},
	}

	// ElastiCache's user groups: moto has users, and no groups of them.
	c.Handle("CreateUserGroup", http.HandlerFunc(c.createUserGroup))
	c.Handle("DescribeUserGroups", http.HandlerFunc(c.describeUserGroups))
	c.Handle("ListTagsForResource", http.HandlerFunc(c.listTags))

	// A replication group names its nodes, and of none of them is anything known: Terraform would wait for them for ever.
	c.watch("CreateReplicationGroup", c.noteReplicationGroup)
	c.Handle("DescribeCacheClusters", http.HandlerFunc(c.describeCacheClusters))

	c.mend("DescribeReplicationGroups", c.addMembers)

	// Lifecycle hooks have a role and a queue that nobody asked for.
	c.mend("DescribeLifecycleHooks", func(answer string) string {
		return unwanted.ReplaceAllString(answer, "")
	})

	// Parameters of a group don't say that they are its user's own, and Terraform takes them for defaults.
	c.mend("DescribeDBParameters", func(answer string) string {
		return strings.ReplaceAll(answer, "</ApplyMethod>", "</ApplyMethod><Source>user</Source>")
	})

	// Monitoring and Database Insights aren't kept.
	c.remember("CreateDBInstance", "DBInstanceIdentifier", monitored)
	c.remember("ModifyDBInstance", "DBInstanceIdentifier", monitored)
	c.mend("DescribeDBInstances", c.addAfter("DBInstanceIdentifier"))

	// The maintenance policy and the warm-up of an Auto Scaling group aren't kept.
	c.remember("CreateAutoScalingGroup", "AutoScalingGroupName", maintained)
	c.remember("UpdateAutoScalingGroup", "AutoScalingGroupName", maintained)
	c.mend("DescribeAutoScalingGroups", c.addAfter("AutoScalingGroupName"))

	// A scaling policy of one kind has an empty configuration of another, and doesn't say that it is on.
	c.mend("DescribePolicies", func(answer string) string {
		return strings.ReplaceAll(answer, "<PredictiveScalingConfiguration/>", "<Enabled>true</Enabled>")
	})

	// The tags of a launch template itself are mixed with those of its instances.
	c.mend("DescribeLaunchTemplateVersions", func(answer string) string {
		return templateTags.ReplaceAllString(answer, "")
	})

	// Descriptions of rules that name another security group aren't kept.
	c.watch("AuthorizeSecurityGroupIngress", c.noteDescription)
	c.watch("AuthorizeSecurityGroupEgress", c.noteDescription)
	c.mend("DescribeSecurityGroupRules", c.addDescriptions)
	return c, nil
}

// ask has moto answer.
func (c *Cloud) ask(r *http.Request) *recorder {
	w := &recorder{header: http.Header{}, status: http.StatusOK}
	r.Header.Del("Accept-Encoding")
	c.moto.ServeHTTP(w, r)
	return w
}

// mend changes moto's good answers to an action.
func (c *Cloud) mend(action string, change func(answer string) string) {
	c.Handle(action, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := c.ask(r)
		body := got.body.String()
		if got.status == http.StatusOK {
			body = change(body)
		}
		got.send(w, body)
	}))
}

// watch shows requests that moto answered well, with the answer.
func (c *Cloud) watch(action string, see func(form url.Values, answer string)) {
	c.Handle(action, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		form := formOf(r)
		got := c.ask(r)
		if got.status == http.StatusOK {
			see(form, got.body.String())
		}
		got.send(w, got.body.String())
	}))
}

// formOf reads a query request's parameters and leaves the body to be read again.
func formOf(r *http.Request) url.Values {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil
	}
	return form
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

func (r *recorder) send(w http.ResponseWriter, body string) {
	maps.Copy(w.Header(), r.header)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(r.status)
	_, _ = io.WriteString(w, body) // a client that hung up needs no answer
}

var (
	unwanted     = regexp.MustCompile(`<(RoleARN|NotificationTargetARN)>[^<]*</(RoleARN|NotificationTargetARN)>`)
	ruleID       = regexp.MustCompile(`<securityGroupRuleId>([^<]*)</securityGroupRuleId>`)
	templateTags = regexp.MustCompile(`<item><resourceType>launch-template</resourceType><tagSet>.*?</tagSet></item>`)
)

// Parameters of which moto keeps none, and the elements of an answer that they become.
var (
	monitored = map[string]string{
		"DatabaseInsightsMode":               "DatabaseInsightsMode",
		"EnablePerformanceInsights":          "PerformanceInsightsEnabled",
		"MonitoringInterval":                 "MonitoringInterval",
		"MonitoringRoleArn":                  "MonitoringRoleArn",
		"PerformanceInsightsKMSKeyId":        "PerformanceInsightsKMSKeyId",
		"PerformanceInsightsRetentionPeriod": "PerformanceInsightsRetentionPeriod",
	}
	maintained = map[string]string{
		"DefaultInstanceWarmup":                          "DefaultInstanceWarmup",
		"InstanceMaintenancePolicy.MaxHealthyPercentage": "InstanceMaintenancePolicy.MaxHealthyPercentage",
		"InstanceMaintenancePolicy.MinHealthyPercentage": "InstanceMaintenancePolicy.MinHealthyPercentage",
	}
)

// remember keeps parameters of an action for the resource that its identifier names.
func (c *Cloud) remember(action, identifier string, parameters map[string]string) {
	c.watch(action, func(form url.Values, _ string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		key := "<" + identifier + ">" + form.Get(identifier) + "</" + identifier + ">"
		if c.asked[key] == nil {
			c.asked[key] = map[string]string{}
		}
		for asked, answered := range parameters {
			if form.Has(asked) {
				c.asked[key][answered] = form.Get(asked)
			}
		}
	})
}

// addAfter puts what was remembered after the element that identifies a resource.
func (c *Cloud) addAfter(identifier string) func(answer string) string {
	element := regexp.MustCompile("<" + identifier + ">[^<]*</" + identifier + ">")
	return func(answer string) string {
		c.mu.Lock()
		defer c.mu.Unlock()
		return element.ReplaceAllStringFunc(answer, func(found string) string {
			return found + elements(c.asked[found])
		})
	}
}

// elements writes parameters as XML; those with a dot in their name are parts of one element.
func elements(parameters map[string]string) string {
	var out strings.Builder
	inner := map[string]map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		if outer, part, isPart := strings.Cut(name, "."); isPart {
			if inner[outer] == nil {
				inner[outer] = map[string]string{}
			}
			inner[outer][part] = parameters[name]
			continue
		}
		out.WriteString("<" + name + ">" + parameters[name] + "</" + name + ">")
	}
	for _, name := range slices.Sorted(maps.Keys(inner)) {
		out.WriteString("<" + name + ">" + elements(inner[name]) + "</" + name + ">")
	}
	return out.String()
}

func (c *Cloud) noteDescription(form url.Values, answer string) {
	description, id := form.Get("IpPermissions.1.Groups.1.Description"), ruleID.FindStringSubmatch(answer)
	if description == "" || id == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.descriptions[id[1]] = description
}

func (c *Cloud) addDescriptions(answer string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ruleID.ReplaceAllStringFunc(answer, func(element string) string {
		if description := c.descriptions[ruleID.FindStringSubmatch(element)[1]]; description != "" {
			element += "<description>" + description + "</description>"
		}
		return element
	})
}
