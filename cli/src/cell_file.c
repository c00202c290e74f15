/* cell_file.c: DIR/cell.json: what makes the cell the same one at the next `up`: its machines
 * with their addresses and zones, the clustermaster's port, the front doors' ports. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const struct cli_front front_defaults[CLI_FRONTS] = {
    { "datastore", "DATASTORE_EMULATOR_HOST", 8081 },
    { "bigtable", "BIGTABLE_EMULATOR_HOST", 8086 },
};

static const char *cell_path(struct cli *cli)
{
    return base_arena_printf(&cli->arena, "%s/cell.json", cli->dir);
}

static char *text_of(struct cli *cli, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return base_arena_strdup(&cli->arena, text ? text : "");
}

static struct base_status cell_read(struct cli *cli, const json_t *root)
{
    struct cli_cell *cell = &cli->cell;
    const json_t *machines = json_object_get(root, "machines"),
                 *fronts = json_object_get(root, "fronts"), *machine;
    size_t i;

    cell->cell = text_of(cli, root, "cell");
    cell->host = text_of(cli, root, "host");
    cell->master_port = (int)json_integer_value(json_object_get(root, "master_port"));
    json_array_foreach(machines, i, machine)
    {
        if (cell->machine_count == CLI_MACHINES_MAX)
            break;
        cell->machines[cell->machine_count++] =
            (struct cli_machine){ text_of(cli, machine, "name"), text_of(cli, machine, "address"),
                                  text_of(cli, machine, "zone") };
    }
    for (i = 0; i < CLI_FRONTS; i++) {
        const json_t *port = json_object_get(fronts, cell->fronts[i].name);

        if (port)
            cell->fronts[i].port = (int)json_integer_value(port);
    }
    if (!*cell->cell || !*cell->host || cell->machine_count == 0 || cell->master_port <= 0)
        return base_status_make(BASE_DATA_LOSS, "%s is not whole", cell_path(cli));
    return BASE_STATUS_OK;
}

struct base_status cli_cell_load(struct cli *cli)
{
    struct base_buf text = { 0 };
    json_error_t error;
    json_t *root;
    struct base_status status = ch_file_read_all(cli->env, cell_path(cli), 1 << 20, &text);

    cli->cell = (struct cli_cell){ 0 };
    memcpy(cli->cell.fronts, front_defaults, sizeof(front_defaults));
    if (base_failed(status))
        return status;
    root = json_loadb((const char *)text.data, text.len, 0, &error);
    base_buf_free(&text);
    if (!root)
        return base_status_make(BASE_DATA_LOSS, "%s:%d: %s", cell_path(cli), error.line,
                                error.text);
    status = cell_read(cli, root);
    json_decref(root);
    cli->cell_there = !base_failed(status);
    return status;
}

struct base_status cli_cell_save(struct cli *cli)
{
    const struct cli_cell *cell = &cli->cell;
    json_t *machines = json_array(), *fronts = json_object(), *root;
    struct base_status status;
    char *text;

    for (size_t i = 0; i < cell->machine_count; i++)
        json_array_append_new(machines,
                              json_pack("{ssssss}", "name", cell->machines[i].name, "address",
                                        cell->machines[i].address, "zone", cell->machines[i].zone));
    for (size_t i = 0; i < CLI_FRONTS; i++)
        json_object_set_new(fronts, cell->fronts[i].name, json_integer(cell->fronts[i].port));
    root = json_pack("{sssssisoso}", "cell", cell->cell, "host", cell->host, "master_port",
                     cell->master_port, "machines", machines, "fronts", fronts);
    text = json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    status = ch_file_write_all(cli->env, cell_path(cli), base_bytes_str(text));
    cli->cell_there = !base_failed(status);
    free(text);
    json_decref(root);
    return status;
}

bool cli_cell_need(struct cli *cli)
{
    struct base_status status = cli_cell_load(cli);

    if (!base_failed(status))
        return true;
    if (status.code == BASE_NOT_FOUND)
        fprintf(stderr,
                "strata: there is no cell in %s: strata up starts one (--dir or $STRATA_DIR name "
                "another folder)\n",
                cli->dir);
    else
        fprintf(stderr, "strata: %s\n", base_status_text(&status));
    base_status_free(&status);
    return false;
}

const char *cli_master_address(struct cli *cli)
{
    return base_arena_printf(&cli->arena, "%s:%d", cli->cell.host, cli->cell.master_port);
}

const char *cli_front_address(struct cli *cli, const struct cli_front *front)
{
    return base_arena_printf(&cli->arena, "%s:%d", cli->cell.host, front->port);
}
