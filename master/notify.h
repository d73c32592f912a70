/* notify - tells the service manager (sd_notify protocol, one datagram to $NOTIFY_SOCKET). */
#ifndef MASTER_NOTIFY_H
#define MASTER_NOTIFY_H

/* Does nothing when there is no manager to tell. */
void notify_manager(const char *state);

#endif
