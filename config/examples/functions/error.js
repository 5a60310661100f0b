// Fails at every call: the runtime answers 500 and stays. Handler: error.handler
module.exports = {
  handler: function (event, context) {
    throw new Error('this function always fails');
  },
};
