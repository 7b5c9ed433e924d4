package sdk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dory-io/dory/internal/statexfer"
)

// Version of this SDK, as GET /health tells it in the header X-Dory-SDK-Version.
const Version = "go/0.1.0"

// phase is how far a processor has come. It only rises. Whether it acts while it runs is its role.
type phase int

const (
	phaseRestoring phase = iota
	phaseRunning
	phaseStopping
)

// Processor is one instance of a stateful singleton. Make it with New, declare its state with Var, then call Run once.
type Processor struct {
	settings

	env      environment
	barred   string // Why this instance must not act; empty where it may.
	started  time.Time
	vars     variables
	instance string // Of this process, and of no other.
	boundary *boundary
	metrics  *metrics
	limiter  *limiter
	requests atomic.Int64
	lately   atomic.Pointer[statexfer.Iterations] // How iterations went.
	saving   sync.Mutex                           // Held while a state is captured and saved, so that saves arrive in their order.

	stopping chan struct{} // Closed when the processor is asked to stop.
	settled  chan struct{} // Closed when it is known whether the last state was saved.
	result   saveResult    // Of the last save; read after settled.

	mu         sync.Mutex
	phase      phase
	reason     string // Why it is not ready.
	ran        bool
	role       role
	turned     chan struct{} // Closed when the role changes.
	position   statexfer.Position
	guest      bool      // See isGuest.
	holds      bool      // See standing.
	final      *captured // What a quiesced instance has answered.
	lastHealth time.Time
	stopBy     time.Time
}

// New reads the environment and the options. Its error names everything that is wrong with either.
func New(options ...Option) (*Processor, error) {
	s := defaultSettings()
	for _, option := range options {
		option(&s)
	}
	env, err := readEnvironment(s.lookupEnv)
	record, roleErr := readRole(env.roleFile)
	if err := errors.Join(err, roleErr, s.validate()); err != nil {
		return nil, fmt.Errorf("configuring the processor: %w", err)
	}
	env.takeRole(record)
	barred := env.whyBarred()
	if barred != "" { // Nor may it pass for the one that acts.
		env.role, env.epoch, env.hasEpoch = roleStandby, 0, false
	}
	if s.backend == nil {
		if s.backend, err = backendOf(env); err != nil {
			return nil, fmt.Errorf("configuring the processor's state: %w", err)
		}
	}
	s.log = s.log.With("processor", env.processorID, "pod", env.podName)
	return &Processor{
		settings: s,
		env:      env,
		barred:   barred,
		started:  time.Now(),
		instance: rand.Text(),
		boundary: newBoundary(),
		metrics:  newMetrics(env.role, env.epoch),
		limiter:  newLimiter(),
		stopping: make(chan struct{}),
		settled:  make(chan struct{}),
		reason:   "restoring state",
		role:     env.role,
		turned:   make(chan struct{}),
		position: statexfer.Position{Epoch: env.epoch},
		guest:    env.migrating && !env.hasEpoch,
	}, nil
}

// Run serves the contract's HTTP endpoints, restores the state, and calls iterate again and again until it is asked to
// stop by GET /prestop, SIGTERM, SIGINT or the end of ctx. Then it lets the iteration in hand finish, saves the state,
// and returns nil if the save succeeded; main should exit with another status than 0 if Run returns an error.
//
// One call of iterate is one iteration. Where it returns nil, its changes of variables are committed and the sequence
// rises by one. Where it returns an error, they are undone; the error is logged and counted, and the next attempt is
// made after a pause that doubles from 0.1 s to 30 s with every failure in a row. Effects outside of the variables
// are not undone. A panic ends Run after the last committed state was saved. The context of an iteration ends only if
// a stop cannot wait any longer for it; see Yield for iterations that wait for input.
func (p *Processor) Run(ctx context.Context, iterate func(context.Context) error) error {
	if err := p.start(); err != nil {
		return err
	}
	ctx, release := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	server, err := p.serve(ctx)
	if err != nil {
		return err
	}
	go func() {
		<-p.stopping
		cancel(errStopping)
	}()
	unhook := context.AfterFunc(ctx, func() { p.stop(context.Cause(ctx).Error()) })
	defer unhook()
	err = p.live(ctx, iterate)
	p.stop("Run ends") // Ends the goroutine above, where nothing else asked for it.
	return errors.Join(err, server.close(ctx))
}

func (p *Processor) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ran {
		return errors.New("Run may be called only once")
	}
	p.ran = true
	return p.vars.seal()
}

// live is a processor's life between the start and the end of its HTTP server.
func (p *Processor) live(ctx context.Context, iterate func(context.Context) error) error {
	defer close(p.settled)
	if p.barred != "" {
		p.standAside(ctx)
		return nil
	}
	if err := p.obtainState(ctx); err != nil {
		p.result = saveResult{message: "nothing to save: the state was not restored yet"}
		if errors.Is(err, errStopping) {
			p.log.Warn("stopped before the state was restored: nothing is saved")
			return nil
		}
		return err
	}
	p.becomeRunning()
	workErr := p.work(ctx, iterate)
	p.stop(whyEnded(ctx, workErr))
	if now := p.standing(); now.role != rolePrimary { // Which cannot change any more.
		p.result = saveResult{message: fmt.Sprintf("nothing saved: this instance is %s, and the state is another's to save", now.role)}
		p.log.Info("nothing is saved", "role", now.role, "epoch", now.position.Epoch, "sequence", now.position.Sequence)
		return workErr
	}
	if p.isGuest() {
		p.result = saveResult{message: "nothing saved: this instance was not told its epoch, and the state is still the one's that it was to replace"}
		p.log.Info("nothing is saved", "reason", p.result.message)
		return workErr
	}
	p.result = p.saveLast(ctx)
	return errors.Join(workErr, p.result.err)
}

// standAside lets people look at an instance that must not act. It is never ready, and refuses every state and every turn.
func (p *Processor) standAside(ctx context.Context) {
	p.result = saveResult{message: "nothing to save: " + p.barred}
	p.notReady(p.barred)
	p.log.Error(p.barred)
	<-ctx.Done()
}

// obtainState restores the saved state, except on a standby, which gets its state from the PRIMARY.
func (p *Processor) obtainState(ctx context.Context) error {
	if p.env.role == roleStandby {
		p.log.Info("standing by", "seenEpoch", p.env.epoch)
		return nil
	}
	return p.restore(ctx)
}

func whyEnded(ctx context.Context, workErr error) string {
	if ctx.Err() != nil {
		return context.Cause(ctx).Error()
	}
	return fmt.Sprintf("iterations cannot go on: %.200v", workErr)
}

func (p *Processor) becomeRunning() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase < phaseRunning {
		p.phase, p.reason = phaseRunning, ""
	}
}

// stop asks the processor to stop. Only the first call counts.
func (p *Processor) stop(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase == phaseStopping {
		return
	}
	p.phase, p.reason = phaseStopping, "stopping: "+why
	p.stopBy = time.Now().Add(p.shutdownTimeout)
	close(p.stopping)
	p.log.Info("stopping", "reason", why)
}

func (p *Processor) isStopping() bool {
	now, _ := p.status()
	return now == phaseStopping
}

func (p *Processor) standing() standing {
	p.mu.Lock()
	defer p.mu.Unlock()
	return standing{phase: p.phase, reason: p.reason, role: p.role, position: p.position, holds: p.holds}
}

// status is the phase, and why the processor is not ready.
func (p *Processor) status() (phase, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phase, p.reason
}

// isGuest says whether the instance works beside the one whose place it is to take, under that one's epoch. What it saved would
// pass for the other's, and be newer than that one's own.
func (p *Processor) isGuest() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.guest
}

func (p *Processor) at() statexfer.Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.position
}

func (p *Processor) moveTo(position statexfer.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.position, p.final = position, nil
	p.metrics.at(position)
}

// Epoch under which this instance acts: DORY_EPOCH, or the one that it was promoted to, or without either the epoch of
// the restored state. A standby's is that of the state it holds.
func (p *Processor) Epoch() int64 { return p.at().Epoch }

// Sequence is the number of iterations that were ever committed to the state.
func (p *Processor) Sequence() int64 { return p.at().Sequence }

// ProcessorID is the identity of the processor, the same in all its pods.
func (p *Processor) ProcessorID() string { return p.env.processorID }

// PodName is the name of the pod that this instance is, or of the host.
func (p *Processor) PodName() string { return p.env.podName }

// Log is the processor's logger.
func (p *Processor) Log() *slog.Logger { return p.log }

// Registerer takes metrics of your own, served at /metrics beside the SDK's.
func (p *Processor) Registerer() prometheus.Registerer { return p.metrics.registry }
