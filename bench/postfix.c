/*
 * Postfix as the subject: a private instance, tuned for this work.
 *
 * Tuned means: no checks, no DNS, no pacing, as many processes and deliveries at once as the load
 * has connections, connections kept open, nothing in chroot. Durability is as always in Postfix:
 * each queue file is fsynced before the 250.
 */
#include "bench/subject.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char postfix_command[] = "/usr/sbin/postfix";
static const char postfix_master[] = "/usr/lib/postfix/sbin/master";

static const char main_cf[] = "compatibility_level = 3.6\n"
                              "command_directory = /usr/sbin\n"
                              "daemon_directory = /usr/lib/postfix/sbin\n"
                              "mail_owner = postfix\n"
                              "setgid_group = postdrop\n"
                              "multi_instance_enable = no\n"
                              "myhostname = postfix.bench.invalid\n"
                              "mydestination =\n"
                              "local_recipient_maps =\n"
                              "alias_maps =\n"
                              "alias_database =\n"
                              "inet_interfaces = all\n"
                              "inet_protocols = all\n"
                              "mynetworks = 127.0.0.0/8 [::1]/128\n"
                              "biff = no\n"
                              "smtpd_peername_lookup = no\n"
                              "smtpd_relay_restrictions = permit_mynetworks, reject\n"
                              "smtpd_recipient_restrictions =\n"
                              "smtpd_client_connection_count_limit = 0\n"
                              "smtpd_client_connection_rate_limit = 0\n"
                              "smtpd_client_message_rate_limit = 0\n"
                              "smtpd_client_event_limit_exceptions = static:all\n"
                              "smtpd_delay_reject = yes\n"
                              "disable_dns_lookups = yes\n"
                              "smtp_dns_support_level = disabled\n"
                              "smtp_host_lookup = native\n"
                              "smtp_tls_security_level = none\n"
                              "smtpd_tls_security_level = none\n"
                              "in_flow_delay = 0\n"
                              "default_process_limit = 100\n"
                              "initial_destination_concurrency = 50\n"
                              "default_destination_concurrency_limit = 50\n"
                              "default_destination_concurrency_failed_cohort_limit = 100\n"
                              "smtp_connection_cache_on_demand = yes\n"
                              "smtp_connection_cache_time_limit = 30s\n"
                              "smtp_connection_reuse_time_limit = 300s\n"
                              "smtp_connection_reuse_count_limit = 0\n"
                              "qmgr_message_active_limit = 100000\n"
                              "qmgr_message_recipient_limit = 100000\n"
                              "max_use = 10000\n"
                              "max_idle = 300s\n"
                              "message_size_limit = 104857600\n"
                              "mailbox_size_limit = 0\n"
                              "header_size_limit = 1048576\n"
                              "address_verify_map =\n";

static const char master_cf_tail[] = "pickup    unix  n - n 60 1 pickup\n"
                                     "cleanup   unix  n - n - 0 cleanup\n"
                                     "qmgr      unix  n - n 300 1 qmgr\n"
                                     "rewrite   unix  - - n - - trivial-rewrite\n"
                                     "bounce    unix  - - n - 0 bounce\n"
                                     "defer     unix  - - n - 0 bounce\n"
                                     "trace     unix  - - n - 0 bounce\n"
                                     "verify    unix  - - n - 1 verify\n"
                                     "flush     unix  n - n 1000? 0 flush\n"
                                     "proxymap  unix  - - n - - proxymap\n"
                                     "proxywrite unix - - n - 1 proxymap\n"
                                     "smtp      unix  - - n - - smtp\n"
                                     "relay     unix  - - n - - smtp\n"
                                     "showq     unix  n - n - - showq\n"
                                     "error     unix  - - n - - error\n"
                                     "retry     unix  - - n - - error\n"
                                     "discard   unix  - - n - - discard\n"
                                     "anvil     unix  - - n - 1 anvil\n"
                                     "scache    unix  - - n - 1 scache\n";

static int write_main(const struct subject *s)
{
    char path[SUBJECT_PATH_BYTES + 32];
    char sink[IP_TEXT];

    snprintf(path, sizeof path, "%s/config/main.cf", s->dir);
    FILE *f = fopen(path, "we");
    if (f == NULL)
        return -errno;
    ip_format(&s->sink.ip, sink);
    fputs(main_cf, f);
    fprintf(f, "queue_directory = %s/queue\ndata_directory = %s/data\n", s->dir, s->dir);
    fprintf(f, "relayhost = [%s]:%u\n", sink, s->sink.port);
    fprintf(f, "smtp_connection_cache_destinations = [%s]:%u\n", sink, s->sink.port);
    if (s->hold)
        fprintf(f, "defer_transports = smtp relay\n");
    return fclose(f) == 0 ? 0 : -errno;
}

static int write_master(const struct subject *s)
{
    char path[SUBJECT_PATH_BYTES + 32];
    char listen[ENDPOINT_TEXT];

    snprintf(path, sizeof path, "%s/config/master.cf", s->dir);
    FILE *f = fopen(path, "we");
    if (f == NULL)
        return -errno;
    endpoint_format(&s->listen, listen);
    fprintf(f, "%s inet n - n - 100 smtpd\n", listen);
    fputs(master_cf_tail, f);
    return fclose(f) == 0 ? 0 : -errno;
}

static int make_dirs(const struct subject *s)
{
    static const char *const names[] = {"config", "queue", "data"};
    const struct passwd *owner = getpwnam("postfix");
    char path[SUBJECT_PATH_BYTES + 32];

    if (owner == NULL)
        return -ENOENT;
    if (chmod(s->dir, 0755) < 0)
        return -errno;
    for (unsigned i = 0; i < ARRAY_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", s->dir, names[i]);
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            return -errno;
    }
    snprintf(path, sizeof path, "%s/data", s->dir);
    return chown(path, owner->pw_uid, owner->pw_gid) < 0 ? -errno : 0;
}

/* `postfix check` makes the directories of the queue with their owners. */
static int run_check(const struct subject *s)
{
    char command[3 * SUBJECT_PATH_BYTES];

    snprintf(command, sizeof command, "%s -c '%s/config' check >'%s/check.txt' 2>&1",
             postfix_command, s->dir, s->dir);
    int status = system(command);
    if (status == 0)
        return 0;
    fprintf(stderr, "postfix: `postfix check` failed; its output is in %s/check.txt\n", s->dir);
    return -EIO;
}

int postfix_prepare(struct subject *s)
{
    if (access(postfix_master, X_OK) < 0) {
        fprintf(stderr, "mochila-bench: Postfix is not installed; on Debian:\n"
                        "  apt-get install -y --no-install-recommends postfix\n"
                        "(no mail system needs to run: the comparison starts its own)\n");
        return -ENOENT;
    }
    if (geteuid() != 0) {
        fprintf(stderr, "mochila-bench: Postfix can be started by root only\n");
        return -EPERM;
    }
    int rc = make_dirs(s);
    if (rc == 0)
        rc = write_main(s);
    if (rc == 0)
        rc = write_master(s);
    if (rc == 0)
        rc = run_check(s);
    return rc;
}

int postfix_exec(const struct subject *s)
{
    char config[SUBJECT_PATH_BYTES + 16];
    char *argv[] = {(char *)(uintptr_t)postfix_master, (char *)(uintptr_t) "-c", config,
                    (char *)(uintptr_t) "-s", NULL};

    snprintf(config, sizeof config, "%s/config", s->dir);
    execv(postfix_master, argv);
    return -errno;
}
