// Writes its answer by itself, piece by piece, through event.extensions.response. Handler: hellostream.foo
const { Readable } = require('stream');

module.exports = {
  foo: function (event, context) {
    const { response } = event.extensions;
    response.setHeader('Content-Type', 'text/event-stream; charset=utf-8');
    return new Promise((resolve, reject) => {
      const words = Readable.from(['hello', ' ', 'world!']);
      words.on('error', reject);
      response.on('finish', () => resolve(words));
      words.pipe(response);
    });
  },
};
