package cloud

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/flowviz/flowagent/internal/awsfake"
)

// userGroup is a user group of ElastiCache as its API has it.
type userGroup struct {
	ARN     string   `xml:"ARN"`
	Engine  string   `xml:"Engine"`
	Status  string   `xml:"Status"`
	ID      string   `xml:"UserGroupId"`
	UserIDs []string `xml:"UserIds>member"`
	tags    []tag
}

type tag struct {
	Key   string `xml:"Key"`
	Value string `xml:"Value"`
}

type userGroups struct {
	Groups []userGroup `xml:"UserGroups>member"`
}

type tags struct {
	Tags []tag `xml:"TagList>Tag"`
}

const userGroupPrefix = "arn:aws:elasticache:us-east-1:123456789012:usergroup:"

func (c *Cloud) createUserGroup(w http.ResponseWriter, r *http.Request) {
	form := formOf(r)
	made := userGroup{Engine: form.Get("Engine"), Status: "active", ID: form.Get("UserGroupId")}
	made.ARN = userGroupPrefix + made.ID
	made.UserIDs = list(form, "UserIds.member.%d")
	keys, values := list(form, "Tags.Tag.%d.Key"), list(form, "Tags.Tag.%d.Value")
	for i := range keys {
		made.tags = append(made.tags, tag{keys[i], values[i]})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.userGroup(made.ID) != nil {
		awsfake.WriteError(w, r, http.StatusBadRequest, "UserGroupAlreadyExists", made.ID+" exists")
		return
	}
	c.groups = append(c.groups, made)
	answer(w, "CreateUserGroup", made)
}

func (c *Cloud) describeUserGroups(w http.ResponseWriter, r *http.Request) {
	id := formOf(r).Get("UserGroupId")
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.groups
	if id != "" {
		one := c.userGroup(id)
		if one == nil {
			awsfake.WriteError(w, r, http.StatusNotFound, "UserGroupNotFound", id+" doesn't exist")
			return
		}
		found = []userGroup{*one}
	}
	answer(w, "DescribeUserGroups", userGroups{found})
}

// listTags answers for user groups; the action is other services' as well.
func (c *Cloud) listTags(w http.ResponseWriter, r *http.Request) {
	id, isGroup := strings.CutPrefix(formOf(r).Get("ResourceName"), userGroupPrefix)
	if !isGroup {
		got := c.ask(r)
		got.send(w, got.body.String())
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.userGroup(id)
	if one == nil {
		awsfake.WriteError(w, r, http.StatusNotFound, "UserGroupNotFound", id+" doesn't exist")
		return
	}
	answer(w, "ListTagsForResource", tags{one.tags})
}

// userGroup is nil where there is none. The caller holds the lock.
func (c *Cloud) userGroup(id string) *userGroup {
	i := slices.IndexFunc(c.groups, func(g userGroup) bool { return g.ID == id })
	if i < 0 {
		return nil
	}
	return &c.groups[i]
}

// cacheCluster is a node of a replication group as ElastiCache's API has it.
type cacheCluster struct {
	ID                string   `xml:"CacheClusterId"`
	Status            string   `xml:"CacheClusterStatus"`
	NodeType          string   `xml:"CacheNodeType"`
	Engine            string   `xml:"Engine"`
	EngineVersion     string   `xml:"EngineVersion"`
	SubnetGroup       string   `xml:"CacheSubnetGroupName"`
	MaintenanceWindow string   `xml:"PreferredMaintenanceWindow"`
	AutoMinorUpgrade  bool     `xml:"AutoMinorVersionUpgrade"`
	Nodes             int      `xml:"NumCacheNodes"`
	ReplicationGroup  string   `xml:"ReplicationGroupId"`
	ParameterGroup    string   `xml:"CacheParameterGroup>CacheParameterGroupName"`
	EncryptedAtRest   bool     `xml:"AtRestEncryptionEnabled"`
	EncryptedOnTheWay bool     `xml:"TransitEncryptionEnabled"`
	TransitEncryption string   `xml:"TransitEncryptionMode"`
	SecurityGroups    []member `xml:"SecurityGroups>member"`
}

type member struct {
	SecurityGroup string `xml:"SecurityGroupId"`
	Status        string `xml:"Status"`
}

type cacheClusters struct {
	Clusters []cacheCluster `xml:"CacheClusters>CacheCluster"`
}

func (c *Cloud) noteReplicationGroup(form url.Values, _ string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replication[form.Get("ReplicationGroupId")] = form
}

var firstMember = regexp.MustCompile(`<MemberClusters><ClusterId>([^<]*)-001</ClusterId></MemberClusters>`)

// addMembers names as many nodes as the group was asked for, where moto names the first alone.
func (c *Cloud) addMembers(answer string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return firstMember.ReplaceAllStringFunc(answer, func(found string) string {
		id := firstMember.FindStringSubmatch(found)[1]
		count, err := strconv.Atoi(c.replication[id].Get("NumCacheClusters"))
		if err != nil {
			return found // a group that was asked for by shards
		}
		members := ""
		for i := range count {
			members += fmt.Sprintf("<ClusterId>%s-%03d</ClusterId>", id, i+1)
		}
		return "<MemberClusters>" + members + "</MemberClusters>"
	})
}

// nodeName is how ElastiCache calls the nodes of a replication group.
var nodeName = regexp.MustCompile(`^(.+)-[0-9]{3}$`)

// describeCacheClusters answers for nodes of replication groups, from what their group was asked for.
func (c *Cloud) describeCacheClusters(w http.ResponseWriter, r *http.Request) {
	id := formOf(r).Get("CacheClusterId")
	name := nodeName.FindStringSubmatch(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	if name == nil || c.replication[name[1]] == nil {
		got := c.ask(r)
		got.send(w, got.body.String())
		return
	}
	group := c.replication[name[1]]
	version := group.Get("EngineVersion")
	major, _, _ := strings.Cut(version, ".")
	cluster := cacheCluster{
		ID: id, Status: "available", NodeType: group.Get("CacheNodeType"), Engine: group.Get("Engine"), EngineVersion: version,
		SubnetGroup: group.Get("CacheSubnetGroupName"), MaintenanceWindow: group.Get("PreferredMaintenanceWindow"),
		AutoMinorUpgrade: group.Get("AutoMinorVersionUpgrade") == "true", Nodes: 1, ReplicationGroup: name[1],
		ParameterGroup:  "default." + group.Get("Engine") + major,
		EncryptedAtRest: group.Get("AtRestEncryptionEnabled") == "true", EncryptedOnTheWay: group.Get("TransitEncryptionEnabled") == "true",
		TransitEncryption: group.Get("TransitEncryptionMode"),
	}
	for _, id := range list(group, "SecurityGroupIds.SecurityGroupId.%d") {
		cluster.SecurityGroups = append(cluster.SecurityGroups, member{id, "active"})
	}
	answer(w, "DescribeCacheClusters", cacheClusters{[]cacheCluster{cluster}})
}

// list reads numbered parameters, from 1 until one is missing.
func list(form url.Values, name string) []string {
	var all []string
	for i := 1; form.Has(fmt.Sprintf(name, i)); i++ {
		all = append(all, form.Get(fmt.Sprintf(name, i)))
	}
	return all
}

// answer writes result as the service's XML.
func answer(w http.ResponseWriter, action string, result any) {
	body, err := xml.Marshal(result)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	// The outermost element is called after the action, whatever the Go type is.
	inner := string(body[strings.IndexByte(string(body), '>')+1 : strings.LastIndexByte(string(body), '<')])
	w.Header().Set("Content-Type", "text/xml")
	fmt.Fprintf(w, `<%[1]sResponse xmlns="http://elasticache.amazonaws.com/doc/2015-02-02/"><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>`, action, inner)
}
