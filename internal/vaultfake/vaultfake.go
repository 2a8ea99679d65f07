// Package vaultfake is a small HashiCorp Vault for tests, where no Vault server can be had: tokens with policies and a
// lifetime, AppRole logins, and a KV version 2 engine with versions, deletion and destruction.
//
// What enters are requests of Vault's HTTP API (developer.hashicorp.com/vault/api-docs: kv-v2, auth/approle, auth/token);
// what leaves are answers with Vault's status codes and bodies. It can be sealed, told to fail, and asked what it was
// asked. It keeps everything in memory and encrypts nothing.
package vaultfake

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Server is one Vault. Its methods may be called while it serves.
type Server struct {
	now func() time.Time

	mu        sync.Mutex
	namespace string
	sealed    bool
	failures  []int // status codes of the next answers
	tokens    map[string]token
	roles     map[string]role
	entries   map[string][]version // by mount/path; version n is at n-1
	logins    int
	reads     map[string]int // by mount/path
}

type token struct {
	prefixes []string // of mount/path that it may read
	expires  time.Time
}

type role struct {
	mount    string
	secretID string
	lifetime time.Duration
	prefixes []string
}

type version struct {
	data      json.RawMessage
	created   time.Time
	deleted   time.Time
	destroyed bool
}

// New returns an empty, unsealed server. now is its clock, against which tokens expire.
func New(now func() time.Time) *Server {
	return &Server{
		now:     now,
		tokens:  make(map[string]token),
		roles:   make(map[string]role),
		entries: make(map[string][]version),
		reads:   make(map[string]int),
	}
}

// UseNamespace makes the server know requests for this namespace only.
func (s *Server) UseNamespace(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.namespace = name
}

// Put writes the next version of an entry, named mount/path, and returns its number. data is a JSON object.
func (s *Server) Put(entry, data string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries[entry] = append(s.entries[entry], version{data: json.RawMessage(data), created: s.now()})
	return len(s.entries[entry])
}

// Delete marks a version as deleted, which an undelete could take back.
func (s *Server) Delete(entry string, number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries[entry][number-1].deleted = s.now()
}

// Destroy removes a version's data for good.
func (s *Server) Destroy(entry string, number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries[entry][number-1].data, s.entries[entry][number-1].destroyed = nil, true
}

// IssueToken makes a token that may read entries whose mount/path begins with one of the prefixes. A lifetime of 0 is for ever.
func (s *Server) IssueToken(lifetime time.Duration, prefixes ...string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.issue(lifetime, prefixes)
}

func (s *Server) issue(lifetime time.Duration, prefixes []string) string {
	id := "hvs." + rand.Text()
	issued := token{prefixes: prefixes}
	if lifetime > 0 {
		issued.expires = s.now().Add(lifetime)
	}
	s.tokens[id] = issued
	return id
}

// RevokeTokens makes every token invalid, also those whose lifetime is not over.
func (s *Server) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// AddRole makes an AppRole at an auth mount and returns its secret id. Tokens from it live for lifetime.
func (s *Server) AddRole(mount, roleID string, lifetime time.Duration, prefixes ...string) (secretID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	secretID = rand.Text()
	s.roles[roleID] = role{mount: mount, secretID: secretID, lifetime: lifetime, prefixes: prefixes}
	return secretID
}

// Restrict changes what tokens of a role may read, those already issued included.
func (s *Server) Restrict(roleID string, prefixes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.roles[roleID]
	r.prefixes = prefixes
	s.roles[roleID] = r
	for id, t := range s.tokens {
		t.prefixes = prefixes
		s.tokens[id] = t
	}
}

// Seal makes the server answer 503 until it is unsealed.
func (s *Server) Seal(sealed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = sealed
}

// FailNext answers the next requests with these status codes, one each.
func (s *Server) FailNext(statuses ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, statuses...)
}

// Logins tells how often somebody logged in.
func (s *Server) Logins() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logins
}

// Reads tells how often an entry was asked for.
func (s *Server) Reads(entry string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads[entry]
}

// ServeHTTP answers reads of KV version 2 entries and AppRole logins.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path, isAPI := strings.CutPrefix(r.URL.Path, "/v1/")
	switch {
	case s.sealed:
		refuse(w, http.StatusServiceUnavailable, "Vault is sealed")
	case len(s.failures) > 0:
		status := s.failures[0]
		s.failures = s.failures[1:]
		if status == http.StatusTooManyRequests {
			refuse(w, status, fmt.Sprintf("request path %q: rate limit quota exceeded", path))
			return
		}
		refuse(w, status, "internal error")
	case !isAPI:
		refuse(w, http.StatusNotFound)
	case r.Header.Get("X-Vault-Namespace") != s.namespace:
		refuse(w, http.StatusNotFound, fmt.Sprintf("no handler for route %q. route entry not found.", path))
	case strings.HasPrefix(path, "auth/") && strings.HasSuffix(path, "/login") && r.Method == http.MethodPost:
		s.logIn(w, r, strings.TrimSuffix(strings.TrimPrefix(path, "auth/"), "/login"))
	case r.Method == http.MethodGet:
		s.read(w, r, path)
	default:
		refuse(w, http.StatusMethodNotAllowed, "1 error occurred:\n\t* unsupported operation\n\n")
	}
}

func (s *Server) logIn(w http.ResponseWriter, r *http.Request, mount string) {
	var credentials struct {
		RoleID   string `json:"role_id"`
		SecretID string `json:"secret_id"`
	}
	if err := json.NewDecoder(r.Body).Decode(&credentials); err != nil {
		refuse(w, http.StatusBadRequest, "failed to parse JSON input")
		return
	}
	found, exists := s.roles[credentials.RoleID]
	if !exists || found.mount != mount || found.secretID != credentials.SecretID {
		refuse(w, http.StatusBadRequest, "invalid role or secret ID")
		return
	}
	s.logins++
	answer(w, http.StatusOK, map[string]any{
		"data": nil,
		"auth": map[string]any{
			"client_token":   s.issue(found.lifetime, found.prefixes),
			"policies":       []string{"default", "node"},
			"lease_duration": int(found.lifetime.Seconds()),
			"renewable":      true,
		},
	})
}

func (s *Server) read(w http.ResponseWriter, r *http.Request, path string) {
	id := r.Header.Get("X-Vault-Token")
	if id == "" {
		refuse(w, http.StatusBadRequest, "missing client token")
		return
	}
	mount, rest, isData := strings.Cut(path, "/data/")
	entry := mount + "/" + rest
	s.reads[entry]++
	holder, known := s.tokens[id]
	switch {
	case !known || !holder.expires.IsZero() && !s.now().Before(holder.expires):
		refuse(w, http.StatusForbidden, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
		return
	case !holder.mayRead(entry):
		refuse(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
		return
	case !isData:
		refuse(w, http.StatusNotFound)
		return
	}
	versions := s.entries[entry]
	number := len(versions)
	if asked := r.URL.Query().Get("version"); asked != "" && asked != "0" {
		var err error
		if number, err = strconv.Atoi(asked); err != nil {
			refuse(w, http.StatusBadRequest, "Field validation failed: error converting input for field \"version\"")
			return
		}
	}
	if number < 1 || number > len(versions) {
		refuse(w, http.StatusNotFound)
		return
	}
	v := versions[number-1]
	metadata := map[string]any{"created_time": v.created.Format(time.RFC3339Nano), "custom_metadata": nil, "deletion_time": "", "destroyed": v.destroyed, "version": number}
	if v.destroyed || !v.deleted.IsZero() {
		if !v.deleted.IsZero() {
			metadata["deletion_time"] = v.deleted.Format(time.RFC3339Nano)
		}
		answer(w, http.StatusNotFound, map[string]any{"data": map[string]any{"data": nil, "metadata": metadata}})
		return
	}
	answer(w, http.StatusOK, map[string]any{"data": map[string]any{"data": v.data, "metadata": metadata}})
}

func (t token) mayRead(entry string) bool {
	for _, prefix := range t.prefixes {
		if strings.HasPrefix(entry, prefix) {
			return true
		}
	}
	return false
}

// answer adds what every answer of Vault has.
func answer(w http.ResponseWriter, status int, body map[string]any) {
	for name, value := range map[string]any{"request_id": "00000000-0000-0000-0000-000000000000", "lease_id": "", "renewable": false, "lease_duration": 0, "wrap_info": nil, "warnings": nil, "auth": nil} {
		if _, set := body[name]; !set {
			body[name] = value
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that hung up needs no answer
}

func refuse(w http.ResponseWriter, status int, complaints ...string) {
	if complaints == nil {
		complaints = []string{}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": complaints}) // a client that hung up needs no answer
}
