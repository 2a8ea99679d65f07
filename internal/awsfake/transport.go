package awsfake

import (
	"bytes"
	"errors"
	"io"
	"net/http"
)

// Transport carries a client's requests to a handler without a network, so that a test can run client and Server in one
// synctest bubble: there, a connection would keep time from passing. A handler that aborts is a connection that breaks.
func Transport(h http.Handler) http.RoundTripper { return transport{h} }

type transport struct{ handler http.Handler }

// errBroken is what a client sees of a connection that ends before an answer.
var errBroken = errors.New("awsfake: the connection broke before an answer")

func (t transport) RoundTrip(r *http.Request) (response *http.Response, err error) {
	defer func() {
		switch aborted := recover(); {
		case aborted == nil:
		case aborted != http.ErrAbortHandler:
			panic(aborted)
		case r.Context().Err() != nil:
			response, err = nil, r.Context().Err()
		default:
			response, err = nil, errBroken
		}
	}()
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	received := r.Clone(r.Context())
	if r.Body == nil {
		received.Body = http.NoBody
	} else {
		defer r.Body.Close()
	}
	answer := newRecorder()
	t.handler.ServeHTTP(answer, received)
	return &http.Response{
		StatusCode: answer.status, Status: http.StatusText(answer.status),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: answer.header, Body: io.NopCloser(bytes.NewReader(answer.body.Bytes())), ContentLength: int64(answer.body.Len()),
		Request: r,
	}, nil
}
