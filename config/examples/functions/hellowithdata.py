"""Prints the event and gives its data back. Handler: hellowithdata.handler"""


def handler(event, context):
    print(event)
    return event["data"]
