// Package relay works the queue: it takes the entries that are due, decides where their recipients go, tries,
// and writes down what came of it, with a bound on what one destination may take at once, a schedule for the next try, a
// warning, and a bounce at the end. The switch wires it to the queue, the routes, the boxes and the outside.
package relay
