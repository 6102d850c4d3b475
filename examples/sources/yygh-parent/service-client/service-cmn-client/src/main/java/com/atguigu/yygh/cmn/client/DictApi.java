package com.atguigu.yygh.cmn.client;

import com.atguigu.yygh.model.cmn.Dict;
import java.util.List;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.service.annotation.GetExchange;
import org.springframework.web.service.annotation.HttpExchange;

/** The data dictionary: codes and what they mean. */
@HttpExchange("/api/cmn")
public interface DictApi {

    @GetExchange("/dicts")
    List<String> codes();

    @GetExchange("/dicts/{dictCode}")
    List<Dict> entries(@PathVariable String dictCode);

    @GetExchange("/dicts/{dictCode}/{value}")
    Dict entry(@PathVariable String dictCode, @PathVariable String value);
}
