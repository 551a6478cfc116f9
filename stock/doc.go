// Package stock decides who gets a unit.
package stock
