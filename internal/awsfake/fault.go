package awsfake

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Fault changes what a call comes to. It wraps whoever would have answered.
type Fault func(next http.Handler) http.Handler

// Refuse answers with an error and has no effect.
func Refuse(status int, code, message string) Fault {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { WriteError(w, r, status, code, message) })
	}
}

// AccessDenied refuses as IAM does.
func AccessDenied() Fault {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			action, p := identify(r)
			message := "User: arn:aws:sts::123456789012:assumed-role/node/i-0 is not authorized to perform: " + action
			// The JSON services answer 400 to everything that is the caller's fault; the query services say 403.
			if p == jsonRPC || p == cborRPC {
				WriteError(w, r, http.StatusBadRequest, "AccessDeniedException", message)
				return
			}
			WriteError(w, r, http.StatusForbidden, "AccessDenied", message)
		})
	}
}

// Throttled refuses for too many requests.
func Throttled() Fault {
	return Refuse(http.StatusBadRequest, "ThrottlingException", "Rate exceeded")
}

// Unavailable refuses with a 503.
func Unavailable() Fault {
	return Refuse(http.StatusServiceUnavailable, "ServiceUnavailable", "Service is temporarily unavailable")
}

// Hang never answers: it waits until the client gives up, without effect.
func Hang() Fault {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		})
	}
}

// Delay answers after a while, or not at all when the client gives up before; then it has no effect.
func Delay(d time.Duration) Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			timer := time.NewTimer(d)
			defer timer.Stop()
			select {
			case <-timer.C:
				next.ServeHTTP(w, r)
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		})
	}
}

// Hold answers once release is closed, or not at all when the client gives up before; then it has no effect.
func Hold(release <-chan struct{}) Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
				next.ServeHTTP(w, r)
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		})
	}
}

// LoseReply lets the call take effect and cuts the connection instead of answering.
func LoseReply() Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(newRecorder(), r)
			panic(http.ErrAbortHandler)
		})
	}
}

// PartialBatch makes BatchGetSecretValue fail for some secrets, given as they stand in SecretIdList with their error
// codes, in the way it reports failures: in Errors, beside the values of the others.
func PartialBatch(codes map[string]string) Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var request map[string]any
			if err := json.Unmarshal(peek(r), &request); err != nil {
				WriteError(w, r, http.StatusBadRequest, "SerializationException", err.Error())
				return
			}
			asked, _ := request["SecretIdList"].([]any)
			var failures []any
			rest := slices.DeleteFunc(asked, func(id any) bool {
				name, _ := id.(string)
				code, fails := codes[name]
				if fails {
					failures = append(failures, map[string]any{"SecretId": name, "ErrorCode": code, "Message": "injected by awsfake"})
				}
				return fails
			})
			reply := map[string]any{"SecretValues": []any{}, "Errors": failures}
			if len(rest) > 0 {
				request["SecretIdList"] = rest
				recorded, err := forward(next, r, request)
				if err != nil {
					WriteError(w, r, http.StatusBadGateway, "BadGateway", err.Error())
					return
				}
				if recorded.status != http.StatusOK {
					recorded.replay(w)
					return
				}
				if err := json.Unmarshal(recorded.body.Bytes(), &reply); err != nil {
					WriteError(w, r, http.StatusBadGateway, "BadGateway", err.Error())
					return
				}
				earlier, _ := reply["Errors"].([]any)
				reply["Errors"] = append(earlier, failures...)
			}
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			_ = json.NewEncoder(w).Encode(reply) // a client that hung up needs no answer
		})
	}
}

// forward sends a changed JSON request on and returns what came back.
func forward(next http.Handler, r *http.Request, request any) (*recorder, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	recorded := newRecorder()
	next.ServeHTTP(recorded, r)
	return recorded, nil
}

// recorder keeps an answer instead of sending it.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newRecorder() *recorder { return &recorder{header: make(http.Header), status: http.StatusOK} }

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

func (r *recorder) replay(w http.ResponseWriter) {
	for name, values := range r.header {
		w.Header()[name] = values
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body.Bytes()) // a client that hung up needs no answer
}
