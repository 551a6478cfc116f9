package audit

import (
	"fmt"
	"strings"
)

// shown is how many faults a Detail names; the others are counted.
const shown = 3

// findings gathers what is wrong with one law.
type findings struct {
	n     int64
	first []string
}

func (f *findings) add(format string, args ...any) {
	if f.n++; f.n <= shown {
		f.first = append(f.first, fmt.Sprintf(format, args...))
	}
}

// law turns findings into a Law; good says what was looked at.
func (f *findings) law(number int, good string, args ...any) Law {
	l := Law{Number: number, Name: names[number], Holds: Holds, Detail: fmt.Sprintf(good, args...)}
	if f.n > 0 {
		l.Holds = Broken
		l.Detail = strings.Join(f.first, "; ")
		if f.n > shown {
			l.Detail += fmt.Sprintf("; and %d more", f.n-shown)
		}
	}
	return l
}

// names of the laws, for people.
var names = map[int]string{
	1: "Redis conserves units", 2: "PostgreSQL claims what is live, within stock", 3: "nothing oversold",
	4: "limits kept", 5: "ends are final", 6: "charged once or not at all", 7: "one number, one order",
	8: "every 202 has its order", 9: "nothing left under way", 10: "Redis and PostgreSQL agree",
	11: "nothing undersold", 12: "same key, same order", 13: "Redis is what a rebuild would load", 14: "every accept in its window",
}

// unchecked is a law that could not be looked at because of err.
func unchecked(number int, err error) Law {
	return Law{Number: number, Name: names[number], Detail: "unchecked: " + err.Error()}
}

// excused is a law for which nothing was given to check it with.
func excused(number int, why string) Law {
	return Law{Number: number, Name: names[number], Detail: "unchecked: " + why, Excused: true}
}
