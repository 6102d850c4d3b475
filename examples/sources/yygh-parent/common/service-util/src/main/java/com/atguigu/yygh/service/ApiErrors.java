package com.atguigu.yygh.service;

import com.atguigu.yygh.common.YyghException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.http.HttpStatus;
import org.springframework.http.ProblemDetail;
import org.springframework.web.bind.annotation.ExceptionHandler;
import org.springframework.web.bind.annotation.RestControllerAdvice;
import org.springframework.web.client.ResourceAccessException;
import org.springframework.web.client.RestClientResponseException;

/** Says what went wrong as problem details (RFC 9457). */
@RestControllerAdvice
class ApiErrors {

    private static final Logger log = LoggerFactory.getLogger(ApiErrors.class);

    @ExceptionHandler
    ProblemDetail refused(YyghException refusal) {
        return ProblemDetail.forStatusAndDetail(HttpStatus.valueOf(refusal.status()), refusal.getMessage());
    }

    /** What another service refused is passed on; what it failed at is its failure, not the caller's. */
    @ExceptionHandler
    ProblemDetail refusedElsewhere(RestClientResponseException answer) {
        if (answer.getStatusCode().is4xxClientError()) {
            ProblemDetail theirs = answer.getResponseBodyAs(ProblemDetail.class);
            return theirs != null ? theirs : ProblemDetail.forStatus(answer.getStatusCode());
        }
        log.warn("a service that this one depends on failed: {}", answer.getMessage());
        return ProblemDetail.forStatusAndDetail(HttpStatus.BAD_GATEWAY, "依赖的服务出错");
    }

    @ExceptionHandler
    ProblemDetail unreachable(ResourceAccessException failure) {
        log.warn("a service that this one depends on does not answer: {}", failure.getMessage());
        return ProblemDetail.forStatusAndDetail(HttpStatus.SERVICE_UNAVAILABLE, "依赖的服务暂时无法访问");
    }
}
