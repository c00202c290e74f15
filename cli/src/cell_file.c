/* cell_file.c: DIR/cell.json: what makes the cell the same one at the next `up`: its machines
 * with their addresses and zones, which of them have a clustermaster and at what port, whether
 * these have founded their group, the front doors' ports. */
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
                 *masters = json_object_get(root, "masters"),
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
    cell->state = text_of(cli, root, "state");
    cell->founded = json_is_true(json_object_get(root, "founded"));
    json_array_foreach(masters, i, machine)
    {
        if (cell->master_count < CLI_MASTERS_MAX && json_string_value(machine))
            cell->masters[cell->master_count++] =
                base_arena_strdup(&cli->arena, json_string_value(machine));
    }
    if (cell->master_count == 0 && cell->machine_count > 0) /* a cell made when there was but one */
        cell->masters[cell->master_count++] = cell->machines[0].name;
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

    cli->cell = (struct cli_cell){ .state = "" };
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
    json_t *machines = json_array(), *masters = json_array(), *fronts = json_object(), *root;
    struct base_status status;
    char *text;

    for (size_t i = 0; i < cell->machine_count; i++)
        json_array_append_new(machines,
                              json_pack("{ssssss}", "name", cell->machines[i].name, "address",
                                        cell->machines[i].address, "zone", cell->machines[i].zone));
    for (size_t i = 0; i < cell->master_count; i++)
        json_array_append_new(masters, json_string(cell->masters[i]));
    for (size_t i = 0; i < CLI_FRONTS; i++)
        json_object_set_new(fronts, cell->fronts[i].name, json_integer(cell->fronts[i].port));
    root = json_pack("{sssssisosbsssoso}", "cell", cell->cell, "host", cell->host, "master_port",
                     cell->master_port, "masters", masters, "founded", cell->founded, "state",
                     cell->state, "machines", machines, "fronts", fronts);
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

const struct cli_machine *cli_machine_find(struct cli *cli, const char *name)
{
    for (size_t i = 0; i < cli->cell.machine_count; i++)
        if (strcmp(cli->cell.machines[i].name, name) == 0)
            return &cli->cell.machines[i];
    return NULL;
}

bool cli_has_master(const struct cli *cli, const char *machine)
{
    for (size_t i = 0; i < cli->cell.master_count; i++)
        if (strcmp(cli->cell.masters[i], machine) == 0)
            return true;
    return false;
}

const char *cli_master_address(struct cli *cli, const char *machine)
{
    const struct cli_machine *found = cli_machine_find(cli, machine);

    return base_arena_printf(&cli->arena, "%s:%d", found ? found->address : cli->cell.host,
                             cli->cell.master_port);
}

const char *cli_master_addresses(struct cli *cli)
{
    const char *all = "";

    for (size_t i = 0; i < cli->cell.master_count; i++)
        all = base_arena_printf(&cli->arena, "%s%s%s", all, i ? "," : "",
                                cli_master_address(cli, cli->cell.masters[i]));
    return all;
}

const char *cli_front_address(struct cli *cli, const struct cli_front *front)
{
    return base_arena_printf(&cli->arena, "%s:%d", cli->cell.host, front->port);
}
