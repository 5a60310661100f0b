// Answers every call with the same words. Handler: helloget.foo
module.exports = {
  foo: function (event, context) {
    return 'hello world';
  },
};
