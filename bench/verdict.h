/* verdict - the results of a source and a sink held against each other: lost, doubled, rates. */
#ifndef BENCH_VERDICT_H
#define BENCH_VERDICT_H

int verdict_main(int argc, char **argv);

#endif
