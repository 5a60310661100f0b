// Uses a package of its own package.json (hellowithdeps-package.json). Handler: hellowithdeps.handler
'use strict';

const _ = require('lodash');

module.exports = {
  handler: (event, context) => {
    return JSON.stringify(_.defaults({ weekday: 'some day' }, event.data));
  },
};
