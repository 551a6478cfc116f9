// Package failpoint names the places in the code where a crash matters, and lets
// a test make the process die at one of them.
//
// It is compiled in by the build tag failpoint alone. Without it Hit is an empty
// function, which the compiler inlines to nothing, and Arm refuses every setting:
// a binary that is meant to sell cannot be told to fail.
//
// With it, Arm says once, at start, what happens where; only the command reads the
// environment that says so (DOORBUSTER_FAILPOINTS):
//
//	door/after-reserve=kill@3      SIGKILL to the own process at the third hit
//	relay/after-mark=stop          SIGSTOP to the own process at the first hit
//	pay/before-authorise=delay:50ms     every hit waits
//	pay/before-authorise=delay:50ms@2   the second hit waits
//
// Several are separated by commas. Before it acts a point writes a line about it
// to standard error, so that a test can tell that it was hit and not passed by.
//
// Points lists all of them. A test of this package reads the tree: each is used
// exactly once. Hit may be called from any goroutine.
package failpoint
