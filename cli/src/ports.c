/* ports.c: which TCP ports are free. Asked only when a cell is started: whoever binds later may
 * still find one taken. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli.h"

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
