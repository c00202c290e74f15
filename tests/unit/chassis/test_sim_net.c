#include "test.h"
Test(sim_net, placeholder)
{
}
