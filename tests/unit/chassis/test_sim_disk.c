#include "test.h"
Test(sim_disk, placeholder)
{
}
