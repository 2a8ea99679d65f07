package probe

import (
	"bufio"
	"errors"
	"io"
	"strconv"
)

// A reply of the Redis serialization protocol, version 2 (https://redis.io/docs/latest/develop/reference/protocol-spec),
// which every Redis and Valkey speaks to a client that doesn't ask for version 3.
type redisReply struct {
	kind  byte   // '+', '-', ':', '$' or '*'
	text  string // of '+', '-', '$' and, as digits, ':'
	items []redisReply
	null  bool // of '$' and '*'
}

const (
	// redisReplyLimit bounds a whole reply. CLUSTER INFO, the longest one asked for, has about 1 KiB.
	redisReplyLimit = 64 << 10
	// redisLineLimit bounds one line; the longest that servers send, the refusal in protected mode, has about 1 KiB.
	redisLineLimit = 4 << 10
	// redisDepthLimit bounds arrays within arrays: HELLO lists modules, and they their arguments, four deep.
	redisDepthLimit = 8
)

// errNotRedis is about bytes that no Redis sends.
var errNotRedis = errors.New("what answers there is not Redis or Valkey")

// redisReader reads the replies of one connection. It trusts no length that it is told: what it holds is bounded by
// what has arrived and redisReplyLimit.
type redisReader struct {
	limit io.LimitedReader
	in    *bufio.Reader
}

func newRedisReader(r io.Reader) *redisReader {
	reader := &redisReader{limit: io.LimitedReader{R: r}}
	reader.in = bufio.NewReaderSize(&reader.limit, redisLineLimit)
	return reader
}

// read returns the next reply, errNotRedis, or an error of the connection.
func (r *redisReader) read() (redisReply, error) {
	r.limit.N = redisReplyLimit
	reply, err := r.value(0)
	if err != nil && r.limit.N <= 0 {
		err = errNotRedis // it would go on without end
	}
	return reply, err
}

func (r *redisReader) value(depth int) (redisReply, error) {
	kind, err := r.in.ReadByte()
	if err != nil {
		return redisReply{}, err
	}
	switch kind {
	case '+', '-', ':', '$', '*':
	case 0x15: // the beginning of a TLS alert, after which it closes the connection, RFC 8446 section 5.1
		return redisReply{}, errClosed
	default: // known from one byte: what isn't Redis may never send a line
		return redisReply{}, errNotRedis
	}
	line, err := r.line()
	if err != nil {
		return redisReply{}, err
	}
	reply := redisReply{kind: kind, text: line}
	if kind == '+' || kind == '-' {
		return reply, nil
	}
	number, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		return redisReply{}, errNotRedis
	}
	if kind == ':' {
		return reply, nil
	}
	reply.text = ""
	switch {
	case number == -1:
		reply.null = true
		return reply, nil
	case number < 0 || number > redisReplyLimit || depth == redisDepthLimit:
		return redisReply{}, errNotRedis
	case kind == '$':
		reply.text, err = r.bulk(int(number))
		return reply, err
	}
	for range number {
		item, err := r.value(depth + 1)
		if err != nil {
			return redisReply{}, err
		}
		reply.items = append(reply.items, item)
	}
	return reply, nil
}

// line reads up to the next CRLF, which it removes.
func (r *redisReader) line() (string, error) {
	line, err := r.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", errNotRedis
	}
	if err != nil {
		return "", err
	}
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return "", errNotRedis
	}
	return string(line[:len(line)-2]), nil
}

// bulk reads a string of known length and the CRLF after it; the length was checked against redisReplyLimit.
func (r *redisReader) bulk(length int) (string, error) {
	content := make([]byte, length+2)
	if _, err := io.ReadFull(r.in, content); err != nil {
		return "", err
	}
	if content[length] != '\r' || content[length+1] != '\n' {
		return "", errNotRedis
	}
	return string(content[:length]), nil
}

// appendRedisCommand appends a command as an array of bulk strings, in which no argument needs escaping.
func appendRedisCommand(b []byte, arguments ...[]byte) []byte {
	b = append(b, '*')
	b = strconv.AppendInt(b, int64(len(arguments)), 10)
	for _, argument := range arguments {
		b = append(b, "\r\n$"...)
		b = strconv.AppendInt(b, int64(len(argument)), 10)
		b = append(b, "\r\n"...)
		b = append(b, argument...)
	}
	return append(b, "\r\n"...)
}
