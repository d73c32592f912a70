/* runner - the subcommands that start an MTA: run (ours), compare (ours beside Postfix), figures.
 */
#ifndef BENCH_RUNNER_H
#define BENCH_RUNNER_H

int run_main(int argc, char **argv);
int compare_main(int argc, char **argv);
int figures_main(int argc, char **argv);

#endif
