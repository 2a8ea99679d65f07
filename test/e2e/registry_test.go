package e2e

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
)

// manifestTypes are what the engine takes: image manifest version 2, schema 2.
const manifestTypes = "application/vnd.docker.distribution.manifest.v2+json"

// overTLS reaches the node's registry.
func (n *node) overTLS() *http.Transport {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: n.registry.CAPool}}
	n.t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// digest asks the registry for the digest of an image's manifest.
func (n *node) digest(ref string) string {
	n.t.Helper()
	_, path, _ := strings.Cut(ref, "/")
	name, tag, _ := strings.Cut(path, ":")
	request, err := http.NewRequestWithContext(n.t.Context(), http.MethodHead, "https://"+n.registry.Host+"/v2/"+name+"/manifests/"+tag, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	request.SetBasicAuth(n.registry.Username, n.registry.Password)
	request.Header.Set("Accept", manifestTypes)
	response, err := n.overTLS().RoundTrip(request)
	if err != nil {
		n.t.Fatal(err)
	}
	_ = response.Body.Close()
	digest := response.Header.Get("Docker-Content-Digest")
	if digest == "" {
		n.t.Fatalf("the registry says %s about %s, and no digest", response.Status, ref)
	}
	return digest
}

// lyingRegistry returns the host of a registry that gives one manifest where another was asked for by digest.
func (n *node) lyingRegistry(asked, given string) string {
	n.t.Helper()
	target := &url.URL{Scheme: "https", Host: n.registry.Host}
	server := httptest.NewTLSServer(&httputil.ReverseProxy{
		Transport: n.overTLS(),
		ErrorLog:  quiet,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.URL.Path = strings.Replace(r.Out.URL.Path, asked, given, 1)
		},
		ModifyResponse: func(r *http.Response) error {
			if r.Header.Get("Docker-Content-Digest") == given {
				r.Header.Set("Docker-Content-Digest", asked)
			}
			return nil
		},
	})
	n.t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}
