package sdk

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// errGone says that nobody waits for the answer of a request.
var errGone = errors.New("the client is gone")

// peerKey is for the connection that a request came by.
type peerKey struct{}

func withPeer(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, conn)
}

// abandoned is why nobody waits for the answer of a request any more, or nil. The context of a request ends when net/http
// notices that, which may be too late: it may have read the request only after the client was gone, and the goroutine
// that is to notice may not have run yet. What the kernel knows about the connection counts.
func abandoned(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if conn, ok := ctx.Value(peerKey{}).(syscall.Conn); ok && hungUp(conn) {
		return errGone
	}
	return nil
}
