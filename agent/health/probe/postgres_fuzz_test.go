package probe

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

var errCut = errors.New("cut")

// FuzzPostgresAnswer feeds the reader of a server's messages with anything. Whatever comes, it must not read on after
// a decision, must not depend on how the bytes arrive, and must not find an answer where libpq would find none.
func FuzzPostgresAnswer(f *testing.F) {
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole, wholeErr := readAnswer(bytes.NewReader(stream))
		pieces, piecesErr := readAnswer(iotest.OneByteReader(bytes.NewReader(stream)))
		if diff := cmp.Diff(whole, pieces, cmp.AllowUnexported(said{})); diff != "" || (wholeErr == nil) != (piecesErr == nil) {
			t.Errorf("byte by byte it says something else (%v, %v):\n%s", wholeErr, piecesErr, diff)
		}
		if wholeErr == nil {
			// A stream that breaks after the decision is as good as one that ends.
			broken, err := readAnswer(io.MultiReader(bytes.NewReader(stream), iotest.ErrReader(errCut)))
			if err != nil || broken != whole {
				t.Errorf("got %+v and %v after a decision, want %+v", broken, err, whole)
			}
		}
		switch {
		case whole.admitted && !whole.asked:
			t.Error("let in without a word about logins")
		case whole.admitted && whole.refused:
			t.Error("let in and refused")
		case whole.asked && (stream[0] != 'R' || len(stream) < 9):
			t.Error("a login was asked for without a whole request")
		case whole.refused && !bytes.Contains(stream, []byte{'E'}):
			t.Error("refused without an error")
		case wholeErr == nil && !whole.asked && !whole.refused:
			t.Error("no error, and no answer either")
		case len(whole.sqlstate) > 5:
			t.Errorf("got SQLSTATE %q, want five characters at most", whole.sqlstate)
		case !whole.refused && whole.sqlstate+whole.message != "":
			t.Error("an error's fields without an error")
		}
		_ = refusal(whole.message, whole.sqlstate)
	})
}

// FuzzPostgresConninfo reads connection strings: whatever comes, only libpq's keywords come out.
func FuzzPostgresConninfo(f *testing.F) {
	for _, seed := range []string{
		"", "host=db port=5432", `user='a\'b' password = c\ d`, "host", "=", "host='", "postgresql://u:p@[::1]:1,b:2/db?sslmode=require&x",
		"postgres://%zz", "postgresql:///?ssl=true", "postgresql://@:,:/?=",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		settings, err := ParsePostgresConninfo(text)
		if err != nil {
			return
		}
		for name := range settings {
			if _, ok := keywords[name]; !ok {
				t.Errorf("took the unknown keyword %q", name)
			}
		}
		_, _ = settings.Postgres()
	})
}
