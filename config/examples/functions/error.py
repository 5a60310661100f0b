"""Fails at every call: the runtime answers 500 and stays. Handler: error.handler"""


def handler(event, context):
    raise Exception("this function always fails")
