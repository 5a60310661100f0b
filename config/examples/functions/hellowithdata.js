// Prints the event and gives its data back. Handler: hellowithdata.handler
module.exports = {
  handler: (event, context) => {
    const { extensions, ...shown } = event;
    console.log(shown);
    return event.data;
  },
};
