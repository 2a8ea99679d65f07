package lab_test

import (
	"crypto/tls"
	"net/http"
	"testing"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/moby/moby/api/pkg/authconfig"

	"github.com/flowviz/flowagent/test/lab"
)

func TestRegistryWantsItsPassword(t *testing.T) {
	t.Parallel()
	server := lab.Registry(t)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.CAPool}}
	t.Cleanup(transport.CloseIdleConnections)
	for _, test := range []struct {
		password string
		want     int
	}{
		{"", http.StatusUnauthorized},
		{"wrong", http.StatusUnauthorized},
		{server.Password, http.StatusOK},
	} {
		r := request(t, http.MethodGet, "https://"+server.Host+"/v2/")
		if test.password != "" {
			r.SetBasicAuth(server.Username, test.password)
		}
		if status, body := get(t, &http.Client{Transport: transport}, r); status != test.want {
			t.Errorf("password %q: got status %d and %s, want %d", test.password, status, body, test.want)
		}
	}
}

func TestEnginePushesToRegistryAndPullsBack(t *testing.T) {
	t.Parallel()
	pushAndPull(t, lab.Registry(t))
}

func TestEngineTrustsRegistryUnderECRName(t *testing.T) {
	t.Parallel()
	for host, password := range map[string]string{
		"123456789012.dkr.ecr.us-east-1.amazonaws.com":    "123456789012-auth-token",
		"210987654321.dkr.ecr.eu-central-1.amazonaws.com": "210987654321-auth-token",
	} {
		server := lab.RegistryAt(t, host)
		if server.Host != host || server.Username != "AWS" || server.Password != password {
			t.Errorf("got %s, %s:%s, want %s, AWS:%s", server.Host, server.Username, server.Password, host, password)
		}
		pushAndPull(t, server)
	}
}

// pushAndPull sends an image to the registry, removes it from the engine and gets it back.
func pushAndPull(t *testing.T, server *lab.RegistryServer) {
	t.Helper()
	engine, err := client.New(client.WithHost(lab.Engine(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	ref := server.Host + "/lab/app:1"
	lab.AppImageWith(t, ref, map[string][]byte{"/name": []byte(server.Host)})

	auth, err := authconfig.Encode(registry.AuthConfig{Username: server.Username, Password: server.Password})
	if err != nil {
		t.Fatal(err)
	}
	push, err := engine.ImagePush(t.Context(), ref, client.ImagePushOptions{RegistryAuth: auth})
	if err != nil {
		t.Fatal(err)
	}
	if err := push.Wait(t.Context()); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
	if _, err := engine.ImageRemove(t.Context(), ref, client.ImageRemoveOptions{PruneChildren: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := engine.ImageInspect(t.Context(), ref); err == nil {
		t.Fatalf("the engine still has %s after its removal", ref)
	}
	pull, err := engine.ImagePull(t.Context(), ref, client.ImagePullOptions{RegistryAuth: auth})
	if err != nil {
		t.Fatal(err)
	}
	if err := pull.Wait(t.Context()); err != nil {
		t.Fatalf("pull %s: %v", ref, err)
	}
	if _, err := engine.ImageInspect(t.Context(), ref); err != nil {
		t.Errorf("after the pull: %v", err)
	}
}
