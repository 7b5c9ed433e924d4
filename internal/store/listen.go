package store

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"k8s.io/apimachinery/pkg/util/wait"
)

// channel is where the triggers of migrations/ notify.
const channel = "dory_changes"

// listenBackoffStart is the first wait after a lost connection, in front of the doubling.
const listenBackoffStart = 100 * time.Millisecond

// Listen delivers hints of changes until ctx ends, and returns nil then. It uses a connection of its own and
// renews it with a growing wait; after each (re)connection it delivers a Resync, because notifications are
// lost in between. Before it believes a connection it sends itself a notification: behind a proxy that pools
// transactions LISTEN succeeds and nothing ever comes. It then delivers nothing, says so in the metrics and
// the log, and keeps trying; a resync by timer is the caller's job. deliver is called by one goroutine at a
// time and should return soon.
func (s *Store) Listen(ctx context.Context, deliver func(Change)) error {
	defer s.metrics.watcherHealthy.Set(0)
	backoff := s.listenBackoff()
	for {
		err := s.listenOnce(ctx, func(change Change) {
			if change.Resync {
				backoff = s.listenBackoff()
			}
			deliver(change)
		})
		if ctx.Err() != nil {
			return nil // The end of ctx is how Listen is stopped, not a failure.
		}
		s.metrics.watcherHealthy.Set(0)
		s.metrics.watcherErrors.Inc()
		delay := backoff.Step()
		s.log.Info("Not listening for changes of the database", "reason", err.Error(), "retryAfter", delay.String())
		select {
		case <-ctx.Done():
			return nil
		case <-s.clock.After(delay):
		}
	}
}

func (s *Store) listenBackoff() wait.Backoff {
	return wait.Backoff{Duration: listenBackoffStart, Factor: 2, Jitter: 0.2, Steps: 20, Cap: s.cfg.ListenBackoff}
}

// listenOnce serves one connection until it fails.
func (s *Store) listenOnce(ctx context.Context, deliver func(Change)) error {
	conn, err := s.connectDirect(ctx)
	if err != nil {
		return err
	}
	defer s.closeDirect(ctx, conn)
	if err := s.subscribe(ctx, conn); err != nil {
		return err
	}
	s.metrics.watcherHealthy.Set(1)
	s.log.Info("Listening for changes of the database")
	deliver(Change{Resync: true})
	for {
		notification, err := s.nextNotification(ctx, conn)
		if err != nil {
			return err
		}
		if notification != nil {
			s.deliverPayload(notification.Payload, deliver)
		}
	}
}

func (s *Store) connectDirect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, s.direct.Copy())
	if err != nil {
		return nil, fmt.Errorf("%w: connect to listen: %w", ErrUnavailable, err)
	}
	return conn, nil
}

// closeDirect says goodbye even if ctx has ended, but not for long.
func (s *Store) closeDirect(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := conn.Close(ctx); err != nil {
		s.log.V(1).Info("Closing the LISTEN connection failed", "error", err.Error())
	}
}

// subscribe starts to listen and waits for a notification to itself, sent through the pool as any writer's.
func (s *Store) subscribe(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ListenCheck)
	defer cancel()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return fmt.Errorf("listen on %s: %w", channel, err)
	}
	probe := `{"probe":"` + rand.Text() + `"}`
	if _, err := s.exec(ctx, "notify_probe", "SELECT pg_notify($1, $2)", channel, probe); err != nil {
		return err
	}
	for {
		notification, err := conn.WaitForNotification(ctx)
		switch {
		case pgconn.Timeout(err) || errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("%w (waited %s)", errNotDelivered, s.cfg.ListenCheck)
		case err != nil:
			return fmt.Errorf("wait for the first notification: %w", err)
		case notification.Payload == probe:
			return nil
		}
	}
}

// nextNotification waits for one; it answers nil after a quiet while in which the connection proved alive.
func (s *Store) nextNotification(ctx context.Context, conn *pgx.Conn) (*pgconn.Notification, error) {
	quiet, cancel := context.WithTimeout(ctx, s.cfg.ListenCheck)
	defer cancel()
	notification, err := conn.WaitForNotification(quiet)
	if err == nil {
		return notification, nil
	}
	if quiet.Err() == nil || ctx.Err() != nil {
		return nil, fmt.Errorf("wait for notifications: %w", err)
	}
	alive, cancelAlive := context.WithTimeout(ctx, s.cfg.QueryTimeout)
	defer cancelAlive()
	if err := conn.Ping(alive); err != nil {
		return nil, fmt.Errorf("the LISTEN connection is dead: %w", err)
	}
	return nil, nil //nolint:nilnil // Nothing came and nothing is wrong.
}

// payload is what the triggers send. Other fields are ignored: they are probes, or from a newer schema.
type payload struct {
	Processors []string `json:"processors"`
	EdgeNodes  []string `json:"edge_nodes"`
	Resync     bool     `json:"resync"`
}

func (s *Store) deliverPayload(text string, deliver func(Change)) {
	var p payload
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		// Somebody else notified on our channel; reading everything again is the safe answer.
		s.log.Info("Not a notification of ours", "channel", channel, "payload", text, "error", err.Error())
		p = payload{Resync: true}
	}
	if p.Resync || len(p.Processors) > 0 || len(p.EdgeNodes) > 0 {
		deliver(Change(p))
	}
}
