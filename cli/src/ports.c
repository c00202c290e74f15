/* ports.c: which TCP ports are free. Asked only when a cell is started: whoever binds later may
 * still find one taken. Of cells that are started at the same time, one chooses and binds after the
 * other (cli_ports_lock): masters of two cells at one port would take each other for members. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli.h"

enum { PORTS_LOCK_MS = 10000, PORTS_LOOK_MS = 20 };

/* The port bound (any, when 0), or 0. */
static int bind_try(const char *host, int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, bound = 0;

    if (fd < 0)
        return 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one,
               sizeof(one)); /* as servers do: what lingers from before is no taker */
    if (inet_pton(AF_INET, host, &address.sin_addr) == 1 &&
        bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 1) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &len) == 0)
        bound = ntohs(address.sin_port);
    close(fd);
    return bound;
}

bool cli_port_free(const char *host, int port)
{
    return bind_try(host, port) == port;
}

int cli_port_any(const char *host)
{
    return bind_try(host, 0);
}

struct ch_file *cli_ports_lock(struct cli *cli)
{
    const char *folder = getenv("TMPDIR");
    const char *path = base_arena_printf(&cli->arena, "%s/strata-ports-%d.lock",
                                         folder && *folder ? folder : "/tmp", (int)getuid());
    ch_time deadline = ch_in(cli->env, PORTS_LOCK_MS * CH_MS);
    struct ch_file *lock = NULL;
    struct base_status status =
        ch_file_open(cli->env, path, CH_FILE_READ | CH_FILE_WRITE | CH_FILE_CREATE, &lock);

    if (base_failed(status)) {
        base_status_free(&status);
        return NULL;
    }
    for (;;) {
        enum base_code code = base_status_drop(ch_file_lock(lock));

        if (code == BASE_OK)
            return lock;
        if (code != BASE_FAILED_PRECONDITION || ch_now(cli->env) >= deadline ||
            ch_sleep_until(cli->env, ch_in(cli->env, PORTS_LOOK_MS * CH_MS)) != CH_TIMEOUT)
            break;
    }
    ch_file_close(lock);
    return NULL;
}
