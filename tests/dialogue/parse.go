package dialogue

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A step is one line of a script, or a repeat with its body.
type step struct {
	line int
	verb string // "open", "C", "S*" ...
	id   string // connection
	text string // the rest of the line, as written
	n    int    // repeat: how often
	body []step // repeat
}

// Error says at which line of the script the dialogue left the script.
type Error struct {
	Line       int    // line of the script, from 1
	Problem    string // what was wrong
	Transcript string // the last lines that went over the wire, may be empty
}

func (e *Error) Error() string {
	s := fmt.Sprintf("script line %d: %s", e.Line, e.Problem)
	if e.Transcript != "" {
		s += "\nthe end of the dialogue:\n" + e.Transcript
	}
	return s
}

// parse reads a script. Its grammar stands in the package comment:
//
//	script = *(line LF)
//	line   = "" / "#" text / verb SP id [SP text] / ("C" / "S") id ["!" / "#" / "*" / "~"] ":" [SP text]
func parse(script string) ([]step, error) {
	open := []step{{}} // the stack of bodies; the script itself at the bottom
	for i, line := range strings.Split(script, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s, err := parseLine(line)
		if err != nil {
			return nil, &Error{Line: i + 1, Problem: err.Error()}
		}
		s.line = i + 1
		top := &open[len(open)-1]
		switch s.verb {
		case "repeat":
			open = append(open, s)
		case "end":
			if len(open) == 1 {
				return nil, &Error{Line: i + 1, Problem: "end without repeat"}
			}
			done := *top
			open = open[:len(open)-1]
			open[len(open)-1].body = append(open[len(open)-1].body, done)
		default:
			top.body = append(top.body, s)
		}
	}
	if len(open) > 1 {
		return nil, &Error{Line: open[len(open)-1].line, Problem: "repeat without end"}
	}
	return open[0].body, nil
}

func parseLine(line string) (step, error) {
	if s, ok := parseTalk(line); ok {
		return s, nil
	}
	verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	rest = strings.TrimSpace(rest)
	s := step{verb: verb}
	switch verb {
	case "close", "halfclose", "starttls", "eof":
		s.id = rest
	case "open", "set":
		s.id, s.text, _ = strings.Cut(rest, " ")
		if s.text == "" {
			return s, fmt.Errorf("%s needs two words", verb)
		}
	case "timeout":
		if _, err := time.ParseDuration(rest); err != nil {
			return s, fmt.Errorf("timeout %q: write a duration such as 500ms", rest)
		}
		s.text = rest
		return s, nil
	case "repeat":
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return s, fmt.Errorf("repeat %q: write how often", rest)
		}
		s.n = n
		return s, nil
	case "end":
		return s, nil
	default:
		return s, fmt.Errorf("%q is no step: write C1: or S1:, or one of open, close, halfclose, starttls, eof, timeout, set, repeat, end", line)
	}
	if s.id == "" || strings.Contains(s.id, " ") {
		return s, fmt.Errorf("%s needs a name", verb)
	}
	return s, nil
}

// parseTalk reads the lines that send and expect.
func parseTalk(line string) (step, bool) {
	if line[0] != 'C' && line[0] != 'S' {
		return step{}, false
	}
	head, text, found := strings.Cut(line, ":")
	if !found {
		return step{}, false
	}
	id := head[1:]
	verb := head[:1]
	if n := len(id); n > 1 && strings.ContainsRune("!#*~", rune(id[n-1])) {
		verb += id[n-1:]
		id = id[:n-1]
	}
	if id == "" || strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyz") != "" {
		return step{}, false
	}
	if verb == "C*" || verb == "C~" {
		return step{}, false
	}
	return step{verb: verb, id: id, text: strings.TrimPrefix(text, " ")}, true
}
