/* direct - the source against the sink with nothing between: what the generator itself can do. */
#ifndef BENCH_DIRECT_H
#define BENCH_DIRECT_H

int direct_main(int argc, char **argv);

#endif
