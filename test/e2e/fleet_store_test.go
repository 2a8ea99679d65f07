//go:build fleet

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/flowviz/flowagent/test/lab"
)

// store is what the nodes of a fleet share: the database and the queue of examples/wms, started with docker compose alone.
type store struct {
	network  string // of the engine
	queue    string // address of Valkey
	password string // of the queue
	db       *pgx.Conn
}

// startStore starts both under a project of their own, which is gone after the test.
func startStore(t *testing.T) *store {
	t.Helper()
	dir, err := os.MkdirTemp("", "store-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	// As the README of the example has it: readable for the user of every container. They are stories/replaced/case.yaml's.
	passwords := map[string]string{"db_password": "fleet-database-password", "cache_password": "fleet-cache-password"}
	for name, password := range passwords {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(password), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := lab.ProjectDir()
	if err != nil {
		t.Fatal(err)
	}
	project := fmt.Sprintf("store-%d", os.Getpid())
	environment := append(os.Environ(), "DOCKER_HOST="+lab.Engine(t), "WMS_SECRETS_DIR="+dir)
	compose := func(arguments ...string) string {
		return output(t, environment, lab.ComposePlugin(t), append([]string{
			"--project-name", project, "--profile", "onprem",
			"-f", filepath.Join(root, "examples/wms/compose.yaml"), "-f", filepath.Join(root, "examples/wms/compose.standalone.yaml"),
		}, arguments...)...)
	}
	t.Cleanup(func() { compose("down", "--volumes") })
	compose("up", "--detach", "--wait", "--pull", "never", "postgres", "valkey")
	s := &store{network: project + "_data", password: passwords["cache_password"]}
	address := func(service string) string {
		id := strings.TrimSpace(compose("ps", "--quiet", service))
		return strings.TrimSpace(output(t, environment, lab.Program(t, "docker"), "inspect", "--format",
			"{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", id))
	}
	s.queue = address("valkey") + ":6379"
	s.db, err = pgx.Connect(t.Context(), fmt.Sprintf("postgres://wms:%s@%s:5432/wms", passwords["db_password"], address("postgres")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.db.Close(context.Background()) })
	return s
}

// watchJobs has the database write down each run of a job, in the transactions of the workers, and lets one take as long as
// a job of a real site: 1 to 5 s.
func (s *store) watchJobs(t *testing.T) {
	t.Helper()
	_, err := s.db.Exec(t.Context(), `
		CREATE TABLE job_runs (
			job_id uuid NOT NULL, attempt int NOT NULL, what text NOT NULL,
			worker text NOT NULL DEFAULT host(inet_client_addr()), at timestamptz NOT NULL DEFAULT clock_timestamp()
		);
		CREATE FUNCTION watch_job() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF NEW.attempts > OLD.attempts THEN
				INSERT INTO job_runs (job_id, attempt, what) VALUES (NEW.id, NEW.attempts, 'begun');
			END IF;
			IF NEW.state = 'done' THEN
				PERFORM pg_sleep(1 + 4 * random());
				INSERT INTO job_runs (job_id, attempt, what) VALUES (NEW.id, NEW.attempts, 'done');
			END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER watch_job BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION watch_job();
	`)
	if err != nil {
		t.Fatal(err)
	}
}

// awaitTask waits until a worker has a job in hand, so that its node leaves in the middle of one.
func (s *store) awaitTask(t *testing.T, worker string) {
	t.Helper()
	eventually(t, "the worker at "+worker+" has a job in hand", func() (busy bool) {
		err := s.db.QueryRow(t.Context(), `
			SELECT EXISTS (SELECT FROM job_runs JOIN jobs ON jobs.id = job_id WHERE worker = $1 AND state = 'running')`, worker).Scan(&busy)
		if err != nil {
			t.Fatal(err)
		}
		return busy
	})
}

// awaitJobs returns all jobs once none is waited for any more, or when patience is over.
func (s *store) awaitJobs(t *testing.T) []job {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		var open int
		if err := s.db.QueryRow(t.Context(), `SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')`).Scan(&open); err != nil {
			t.Fatal(err)
		}
		if open == 0 {
			break
		}
		pause(t, time.Second)
	}
	rows, err := s.db.Query(t.Context(), `
		SELECT jobs.id::text, jobs.state, coalesce(begun.worker, ''), begun.at, done.at
		FROM jobs
		LEFT JOIN job_runs begun ON begun.job_id = jobs.id AND begun.what = 'begun'
		LEFT JOIN job_runs done ON done.job_id = jobs.id AND done.what = 'done' AND done.attempt = begun.attempt
		ORDER BY jobs.created_at, jobs.id, begun.attempt`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []job
	for rows.Next() {
		var id, state, worker string
		var began, ended *time.Time
		if err := rows.Scan(&id, &state, &worker, &began, &ended); err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 || all[len(all)-1].id != id {
			all = append(all, job{id: id, state: state})
		}
		if began == nil {
			continue
		}
		run := jobRun{worker: worker, began: *began}
		if ended != nil {
			run.ended = *ended
		}
		last := &all[len(all)-1]
		last.runs = append(last.runs, run)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// unacknowledged is how many jobs the queue would hand out again, or has still to hand out: the keys are Kombu's.
func (s *store) unacknowledged(t *testing.T) int {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.queue, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "AUTH %s\r\nHLEN unacked\r\nLLEN wms\r\n", s.password); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	var taken, waiting int
	if _, err := fmt.Fscanf(in, "+OK\r\n:%d\r\n:%d\r\n", &taken, &waiting); err != nil {
		t.Fatalf("ask the queue: %v", err)
	}
	return taken + waiting
}

// output runs a program and returns what it printed.
func output(t *testing.T, environment []string, name string, arguments ...string) string {
	t.Helper()
	cmd := exec.Command(name, arguments...) // also after the test's end
	cmd.Env = environment
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, problems.String())
	}
	return string(out)
}

// wmsFile is a file of examples/wms.
func wmsFile(t *testing.T, name string) string {
	t.Helper()
	root, err := lab.ProjectDir()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(root, "examples/wms", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
