package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Up makes the project what the files and the override say, with `compose up`: containers that are as they should be
// stay untouched, those whose image, configuration or label changed are recreated. With services, it is about these
// alone and leaves their dependencies as they are. [Project.WriteOverride] must have been called before.
//
// It never pulls, builds, or answers a question. Compose waits for dependencies (depends_on with a condition), so it
// can take long; ctx ends it. The error of a dependency that failed has its last log lines.
//
// Orphans are not removed here: [Runner.StopLeft] does, before, so that their ports are free and their grace is kept.
func (r *Runner) Up(ctx context.Context, services ...string) error { return r.up(ctx, services) }

func (r *Runner) up(ctx context.Context, services []string) error {
	for _, name := range services {
		if err := r.active(name); err != nil {
			return err
		}
	}
	args := []string{"up", "--detach", "--no-build", "--pull", "never", "--no-color"}
	if len(services) > 0 {
		args = append(append(args, "--no-deps", "--"), services...)
	}
	defer r.changes.begin(services...)()
	begin := time.Now()
	err := r.compose(ctx, args...)
	var failed *composeError
	if !errors.As(err, &failed) {
		return err
	}
	return r.explain(ctx, failed, begin)
}

func (r *Runner) active(name string) error {
	if active := r.project.Services(); !slices.Contains(active, name) {
		return fmt.Errorf("no active service %q%s", name, didYouMean(name, active))
	}
	return nil
}

// explain adds to compose's error what the containers that failed meanwhile had to say.
func (r *Runner) explain(ctx context.Context, failed *composeError, begin time.Time) error {
	text := strings.Join(failed.lines, "\n")
	switch {
	case strings.Contains(text, "No such image"):
		return fmt.Errorf("%w: pull or load it first; compose is not allowed to (--pull never)", failed)
	case strings.Contains(text, "Cannot connect to the Docker daemon"):
		return fmt.Errorf("%w: start it (systemctl start docker), or correct workload.engine", failed)
	}
	containers, err := r.containers(context.WithoutCancel(ctx))
	if err != nil {
		return failed // the first error is the better one
	}
	j := judge{project: r.project, now: time.Now(), since: begin}
	state, _ := j.state(containers)
	if failures := r.failures(ctx, state, func(p Phase) bool { return p == PhaseFailed || p == PhaseUnhealthy || p == PhaseStopped }); len(failures) > 0 {
		return fmt.Errorf("%w\n%w", failed, &NotReadyError{Failures: failures})
	}
	return failed
}
