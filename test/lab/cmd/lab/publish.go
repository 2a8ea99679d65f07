package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

// publish leads connections to the plan's listeners, which are the machine's, to the same ports of the lab's loopback.
// It returns at once; the listeners end with the process.
func publish(p plan) error {
	for i, address := range p.Publish {
		file := os.NewFile(p.listenerFile(i), address)
		listener, err := net.FileListener(file)
		_ = file.Close() // the listener has a descriptor of its own
		if err != nil {
			return fmt.Errorf("publish %s: %w", address, err)
		}
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("publish %s: %w", address, err)
		}
		go acceptAll(listener, net.JoinHostPort("127.0.0.1", port))
	}
	return nil
}

func acceptAll(listener net.Listener, target string) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go join(connection, target)
	}
}

// join copies both ways until both sides have said all they have to say.
func join(outside net.Conn, target string) {
	defer outside.Close()
	inside, err := net.Dial("tcp", target)
	if err != nil {
		return // nobody listens there yet: the caller sees a closed connection
	}
	defer inside.Close()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		pipe(outside, inside)
	}()
	pipe(inside, outside)
	<-answered
}

// pipe copies until the source ends, then tells the destination that nothing more comes.
func pipe(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
