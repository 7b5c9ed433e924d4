// Package docs tests the documentation: what README, docs and samples tell people to type works as written, and what they
// name exists. Blocks of code need no marks for it; a block that cannot be tested says why in a comment of its own:
//
//	<!-- test: run -->               is run on real kubelets, too, in order, by test/e2e
//	<!-- test: endless -->           does not end by itself; the tests end it
//	<!-- test: file main.go -->      is what a person would write into that file
//	<!-- test: output: REASON -->    is nothing to type
package docs
